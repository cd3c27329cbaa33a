// SPDX-License-Identifier: Apache-2.0
// What single steps of the engine cost, in nanoseconds, without containers.
//
//   bench_micro [--benchmark_filter=dispatch] [--benchmark_format=json] [--benchmark_out=FILE]
//
// Column allocs/op: calls of operator new and delete.

#include "bench/micro/micro.h"

int main(int argc, char** argv) {
  shunt::bench::RegisterPicks();
  shunt::bench::RegisterSteps();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
