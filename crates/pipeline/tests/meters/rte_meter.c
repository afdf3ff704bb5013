/* SPDX-License-Identifier: Apache-2.0 */
/*
 * librte_meter on traces from standard input: "kind aware cir cbs second_rate second_burst packets", then
 * "time length colour" for each packet; one line of colours (0 green, 1 yellow, 2 red) for each trace.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <rte_meter.h>

/* A clock of nanoseconds, without the library's start-up. */
uint64_t rte_get_tsc_hz(void)
{
	return 1000000000;
}

enum { SRTCM, TRTCM, RFC4115 };

struct meter {
	struct rte_meter_srtcm_profile sp;
	struct rte_meter_srtcm s;
	struct rte_meter_trtcm_profile tp;
	struct rte_meter_trtcm t;
	struct rte_meter_trtcm_rfc4115_profile rp;
	struct rte_meter_trtcm_rfc4115 r;
};

static int set_up(struct meter *m, int kind, uint64_t cir, uint64_t cbs, uint64_t rate, uint64_t burst)
{
	struct rte_meter_srtcm_params sp = { .cir = cir, .cbs = cbs, .ebs = burst };
	struct rte_meter_trtcm_params tp = { .cir = cir, .cbs = cbs, .pir = rate, .pbs = burst };
	struct rte_meter_trtcm_rfc4115_params rp = { .cir = cir, .cbs = cbs, .eir = rate, .ebs = burst };
	int bad;

	memset(m, 0, sizeof(*m));
	if (kind == SRTCM) {
		bad = rte_meter_srtcm_profile_config(&m->sp, &sp) || rte_meter_srtcm_config(&m->s, &m->sp);
		m->s.time = 0;
	} else if (kind == TRTCM) {
		bad = rte_meter_trtcm_profile_config(&m->tp, &tp) || rte_meter_trtcm_config(&m->t, &m->tp);
		m->t.time_tc = m->t.time_tp = 0;
	} else {
		bad = rte_meter_trtcm_rfc4115_profile_config(&m->rp, &rp) ||
		      rte_meter_trtcm_rfc4115_config(&m->r, &m->rp);
		m->r.time_tc = m->r.time_te = 0;
	}
	return bad;
}

static int check(struct meter *m, int kind, int aware, uint64_t time, uint32_t len, int colour)
{
	switch (kind * 2 + !!aware) {
	case SRTCM * 2:
		return rte_meter_srtcm_color_blind_check(&m->s, &m->sp, time, len);
	case SRTCM * 2 + 1:
		return rte_meter_srtcm_color_aware_check(&m->s, &m->sp, time, len, colour);
	case TRTCM * 2:
		return rte_meter_trtcm_color_blind_check(&m->t, &m->tp, time, len);
	case TRTCM * 2 + 1:
		return rte_meter_trtcm_color_aware_check(&m->t, &m->tp, time, len, colour);
	case RFC4115 * 2:
		return rte_meter_trtcm_rfc4115_color_blind_check(&m->r, &m->rp, time, len);
	default:
		return rte_meter_trtcm_rfc4115_color_aware_check(&m->r, &m->rp, time, len, colour);
	}
}

int main(void)
{
	uint64_t cir, cbs, rate, burst, time;
	int kind, aware, packets, colour, i;
	uint32_t len;
	struct meter m;

	while (scanf("%d %d %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %d", &kind, &aware, &cir, &cbs,
		     &rate, &burst, &packets) == 7) {
		if (set_up(&m, kind, cir, cbs, rate, burst))
			return 1;
		for (i = 0; i < packets; i++) {
			if (scanf("%" SCNu64 " %" SCNu32 " %d", &time, &len, &colour) != 3)
				return 1;
			putchar('0' + check(&m, kind, aware, time, len, colour));
		}
		putchar('\n');
	}
	return 0;
}
