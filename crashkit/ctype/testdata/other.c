/* A second unit, which defines what the first one only declares, and has another type of a name that is taken. */
struct missing {
	long found;
};
struct node {
	int impostor;
};
struct missing missing;
struct node other;
