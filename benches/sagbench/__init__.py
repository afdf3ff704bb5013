"""The benchmark behind scripts/bench.sh: peers on the same topology, in turns. docs/benchmarks.md."""
