// The command line of postkeeper_bench.
#ifndef POSTKEEPER_BENCH_FLAGS_H_
#define POSTKEEPER_BENCH_FLAGS_H_

#include <string>

#include "bench/rounds.h"

namespace postkeeper::bench {

enum class Output { kTable, kJson, kLines };

struct Flags {
  RoundsOptions rounds;
  Output output = Output::kTable;
};

// What to print, with which exit code; the text is "" when there is something to run.
struct PrintAndExit {
  std::string text;
  int code = 0;
};

PrintAndExit ParseFlags(int argc, const char* const* argv, Flags& flags);

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_FLAGS_H_
