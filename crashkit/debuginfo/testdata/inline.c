/* Functions that are inlined, some twice and one into another. */
volatile int sink;

static inline __attribute__((always_inline)) void store(int v)
{
	sink = v;
}

static inline __attribute__((always_inline)) void twice(int v)
{
	store(v);
	store(2 * v);
}

__attribute__((noinline)) int plain(int v)
{
	sink = v + 1;
	return sink * 3;
}

int outer(int v)
{
	twice(v);
	if (v > 7)
		store(plain(v));
	return sink;
}

void _start(void)
{
	for (;;)
		outer(sink);
}
