/* librte_fib and librte_rib on the routes and addresses of the example `internet_table`, which compiles and runs this
 * and speaks to it by its standard input and output: a line with a name and a way of looking up is answered by
 * nanoseconds a lookup and a checksum of all answers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_memory.h>
#include <rte_rib6.h>

#define BATCH 64
#define NO_ROUTE 0x3fffffff

struct route4 {
	uint32_t addr, len, hop;
};

struct route6 {
	uint8_t addr[16];
	uint32_t len, hop;
};

struct input {
	uint32_t routes, addrs;
	void *route, *addr;
};

static struct rte_fib *dir24;
static struct rte_fib6 *trie6;
static struct rte_rib6 *rib6;
static struct input in4, in6;

static void *slurp(FILE *f, size_t size)
{
	void *p = malloc(size);

	if (p == NULL || fread(p, 1, size, f) != size) {
		fprintf(stderr, "the input is too short\n");
		exit(2);
	}
	return p;
}

static struct input read_input(const char *path, size_t route, size_t addr)
{
	struct input in = { 0 };
	FILE *f = fopen(path, "rb");

	if (f == NULL) {
		perror(path);
		exit(2);
	}
	uint32_t *head = slurp(f, 8);
	in.routes = head[0];
	in.addrs = head[1];
	free(head);
	in.route = slurp(f, route * in.routes);
	in.addr = slurp(f, addr * in.addrs);
	fclose(f);
	return in;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void check(int failed, const char *what)
{
	if (failed) {
		fprintf(stderr, "%s: %s\n", what, rte_strerror(rte_errno));
		exit(2);
	}
}

static void build4(void)
{
	struct rte_fib_conf conf = { .type = RTE_FIB_DIR24_8, .default_nh = NO_ROUTE, .max_routes = 2u << 20 };
	struct route4 *r = in4.route;

	conf.dir24_8.nh_sz = RTE_FIB_DIR24_8_4B;
	conf.dir24_8.num_tbl8 = 1u << 15;
	dir24 = rte_fib_create("v4", SOCKET_ID_ANY, &conf);
	check(dir24 == NULL, "rte_fib_create");
	for (uint32_t i = 0; i < in4.routes; i++)
		check(rte_fib_add(dir24, r[i].addr, r[i].len, r[i].hop) != 0, "rte_fib_add");
}

static void build6(void)
{
	struct rte_fib6_conf conf = { .type = RTE_FIB6_TRIE, .default_nh = NO_ROUTE, .max_routes = 1u << 19 };
	struct rte_rib6_conf rconf = { .max_nodes = 1u << 19 };
	struct route6 *r = in6.route;

	conf.trie.nh_sz = RTE_FIB6_TRIE_4B;
	conf.trie.num_tbl8 = 1u << 19;
	trie6 = rte_fib6_create("v6", SOCKET_ID_ANY, &conf);
	check(trie6 == NULL, "rte_fib6_create");
	rib6 = rte_rib6_create("rib6", SOCKET_ID_ANY, &rconf);
	check(rib6 == NULL, "rte_rib6_create");
	for (uint32_t i = 0; i < in6.routes; i++) {
		check(rte_fib6_add(trie6, r[i].addr, r[i].len, r[i].hop) != 0, "rte_fib6_add");
		struct rte_rib6_node *node = rte_rib6_insert(rib6, r[i].addr, r[i].len);
		check(node == NULL, "rte_rib6_insert");
		rte_rib6_set_nh(node, r[i].hop);
	}
}

static uint64_t rib6_one(const uint8_t addr[16])
{
	struct rte_rib6_node *node = rte_rib6_lookup(rib6, addr);
	uint64_t hop = NO_ROUTE;

	if (node != NULL)
		rte_rib6_get_nh(node, &hop);
	return hop;
}

/* All answers, added up with their places. */
static uint64_t run(const char *what, int chained)
{
	uint64_t sum = 0, hops[BATCH];

	if (strcmp(what, "dir24_8") == 0) {
		uint32_t *a = in4.addr;
		if (chained) {
			uint64_t hop = 0;
			for (uint32_t i = 0; i < in4.addrs; i++) {
				/* No number is that large: the next address waits for the answer, and is the same. */
				uint32_t addr = a[i + (hop >> 31)];
				rte_fib_lookup_bulk(dir24, &addr, &hop, 1);
				sum += hop ^ i;
			}
			return sum;
		}
		for (uint32_t i = 0; i + BATCH <= in4.addrs; i += BATCH) {
			rte_fib_lookup_bulk(dir24, a + i, hops, BATCH);
			for (uint32_t k = 0; k < BATCH; k++)
				sum += hops[k] ^ (i + k);
		}
		return sum;
	}
	uint8_t(*a)[16] = in6.addr;
	int rib = strcmp(what, "rib6") == 0;
	if (chained || rib) {
		uint64_t hop = 0;
		for (uint32_t i = 0; i < in6.addrs; i++) {
			uint32_t at = i + (chained ? hop >> 31 : 0);
			if (rib)
				hop = rib6_one(a[at]);
			else
				rte_fib6_lookup_bulk(trie6, a + at, &hop, 1);
			sum += hop ^ i;
		}
		return sum;
	}
	for (uint32_t i = 0; i + BATCH <= in6.addrs; i += BATCH) {
		rte_fib6_lookup_bulk(trie6, a + i, hops, BATCH);
		for (uint32_t k = 0; k < BATCH; k++)
			sum += hops[k] ^ (i + k);
	}
	return sum;
}

int main(int argc, char **argv)
{
	char line[128], what[32], way[32];
	char *eal[] = { argv[0], "--no-huge", "--no-pci", "--no-telemetry",    "-m",
			"4096",	 "-l",	      "0",	  "--log-level=error", "--force-max-simd-bitwidth=512" };

	if (argc != 3) {
		fprintf(stderr, "usage: %s ROUTES4 ROUTES6\n", argv[0]);
		return 2;
	}
	in4 = read_input(argv[1], sizeof(struct route4), sizeof(uint32_t));
	in6 = read_input(argv[2], sizeof(struct route6), 16);
	check(rte_eal_init(sizeof(eal) / sizeof(eal[0]), eal) < 0, "rte_eal_init");
	double start = now();
	build4();
	double middle = now();
	build6();
	printf("%.0f %.0f\n", (middle - start) / 1e6, (now() - middle) / 1e6);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL && sscanf(line, "%31s %31s", what, way) == 2) {
		if (strcmp(what, "select") == 0) {
			int vector = strcmp(way, "vector") == 0;
			int four = rte_fib_select_lookup(dir24, vector ? RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512
								       : RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO);
			int six = rte_fib6_select_lookup(trie6, vector ? RTE_FIB6_LOOKUP_TRIE_VECTOR_AVX512
								       : RTE_FIB6_LOOKUP_TRIE_SCALAR);
			printf("%d %d\n", four, six);
		} else {
			uint32_t addrs = strcmp(what, "dir24_8") == 0 ? in4.addrs : in6.addrs;
			double begin = now();
			uint64_t sum = run(what, strcmp(way, "chained") == 0);
			printf("%.3f %" PRIu64 "\n", (now() - begin) / addrs, sum);
		}
		fflush(stdout);
	}
	return 0;
}
