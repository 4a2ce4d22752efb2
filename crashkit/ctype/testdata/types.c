/* Every kind of type that C has, for the tests of both sources of types. */

struct node;
struct missing;

typedef struct node {
	struct node *next;
	union {
		unsigned long value;
		struct {
			int low, high;
		};
	};
	char name[8];
} node_t;

struct grid {
	int matrix[2][3];
	short deep[2][3][4];
	int empty[0];
	char open[];
};

struct flags {
	int a : 3;
	unsigned long b : 7;
	int plain;
	unsigned char c : 1, d : 2;
	long wide : 40;
};

struct ops {
	int (*open)(const char *, ...);
	int (*grid)[4];
	void (*nothing)(void);
	void *any;
};

typedef unsigned long name_clash;
struct name_clash {
	int x;
};

struct missing_user {
	struct missing *p;
	struct later *q;
};

struct later {
	_Bool yes;
	signed char small;
	unsigned char byte;
	short s;
	unsigned short us;
	unsigned int u;
	long long ll;
	unsigned long long ull;
	__int128 huge;
	double d;
};

struct qualified {
	char *const volatile p;
	const volatile int *restrict q;
};

enum state { LIVE, GOING = 2 };
enum err { MINUS = -1, NONE };
enum wide { TOP = 1UL << 63 };
enum tiny { ONE = 1, LAST = 255 } __attribute__((packed));
enum { NAMELESS = 7, BIG = 0xffffffff };

union either {
	int i;
	char c[6];
};

struct holder {
	enum { INSIDE = 3, OUTSIDE } where;
	enum state state;
	union either either[2];
};

#define KEEP(t, v) t v = {0}
KEEP(node_t, node);
KEEP(struct grid, grid);
KEEP(struct flags, flags);
KEEP(struct ops, ops);
name_clash number;
KEEP(struct name_clash, clash);
KEEP(struct missing_user, missing_user);
KEEP(struct later, later);
KEEP(struct qualified, qualified);
enum state state;
enum err err;
enum wide wide;
enum tiny tiny;
unsigned int nameless = BIG;
KEEP(struct holder, holder);
void _start(void) { }
