// postkeeperd: the server. `postkeeperd inspect` looks into the store instead.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "service/config.h"
#include "service/daemon.h"
#include "service/inspect.h"

namespace postkeeper {
namespace {

int Print(const PrintAndExit& print) {
  std::fputs(print.text.c_str(), print.code == 0 ? stdout : stderr);
  return print.code;
}

// Whichever of standard input, output and error is closed gets /dev/null. Else the next socket would get its number,
// and the log would be written into that. Before the libraries' initializers, which open files; so nothing but system
// calls.
void FillClosedStandardStreams(int, char**, char**) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (syscall(SYS_fcntl, fd, F_GETFD) < 0) syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR);
  }
}
[[gnu::section(".preinit_array"), gnu::used]] void (*fill_closed_standard_streams)(int, char**,
                                                                                   char**) = FillClosedStandardStreams;

int Main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "inspect") {
    return RunInspect(std::vector<std::string>(argv + 2, argv + argc));
  }
  const ConfigOutcome outcome = ParseConfig(argc, argv, environ);
  if (const auto* print = std::get_if<PrintAndExit>(&outcome)) return Print(*print);
  return RunDaemon(std::get<Config>(outcome), POSTKEEPER_VERSION);
}

}  // namespace
}  // namespace postkeeper

int main(int argc, char** argv) {
  // Debian builds abseil with it; it costs each lock, ours and gRPC's, more than the lock itself.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const int code = postkeeper::Main(argc, argv);
  std::fflush(stdout);
  // Without destructors: RunDaemon has closed what has to be closed, in its order.
  std::_Exit(code);
}
