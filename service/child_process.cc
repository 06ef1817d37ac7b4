#include "service/child_process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// What the child needs, made before the fork: after it only calls that are safe in a signal handler may be made, since
// another thread may have held any lock at that moment.
struct Prepared {
  std::vector<char*> arguments;
  std::vector<char*> environment;
  const char* working_directory;
  int output_fd;
  int kept_fd;
  int error_fd;  // gets errno if the program cannot be started; closed by starting it
  pid_t parent;
};

[[noreturn]] void BecomeTheProgram(const Prepared& prepared) {
  const auto fail = [&] {
    const int error = errno;
    if (write(prepared.error_fd, &error, sizeof error) < 0) _exit(126);
    _exit(127);
  };
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  // The parent may have died before the line above.
  if (getppid() != prepared.parent) _exit(125);
  setsid();
  for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null_fd = open("/dev/null", O_RDONLY);
  if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) fail();
  if (dup2(prepared.output_fd, STDOUT_FILENO) < 0 || dup2(prepared.output_fd, STDERR_FILENO) < 0) fail();
  if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) fail();
  if (prepared.kept_fd >= 0 && fcntl(prepared.kept_fd, F_SETFD, 0) != 0) fail();
  if (chdir(prepared.working_directory) != 0) fail();
  execve(prepared.arguments[0], prepared.arguments.data(), prepared.environment.data());
  fail();
  _exit(127);  // not reached
}

std::string EndText(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return Cat("exit code ", info.si_status);
  return Cat("signal ", info.si_status, " (", strsignal(info.si_status), ")");
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const ChildOptions& options) {
  const auto failure = [&](int error) {
    return absl::InternalError(Cat("cannot start ", options.arguments[0], ": ", std::strerror(error)));
  };
  int error_pipe[2];
  if (pipe2(error_pipe, O_CLOEXEC) != 0) return failure(errno);
  const Prepared prepared{Pointers(options.arguments),
                          Pointers(options.environment),
                          options.working_directory.c_str(),
                          options.output_fd,
                          options.kept_fd,
                          error_pipe[1],
                          getpid()};
  const pid_t pid = fork();
  if (pid == 0) BecomeTheProgram(prepared);
  const int fork_error = errno;
  close(error_pipe[1]);
  int child_error = 0;
  ssize_t got = 0;
  if (pid > 0) {
    do {
      got = read(error_pipe[0], &child_error, sizeof child_error);
    } while (got < 0 && errno == EINTR);
  }
  close(error_pipe[0]);
  if (pid < 0) return failure(fork_error);
  // Not pidfd_open: in Debian 12 its header forgets to say that it is C.
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  ChildProcess child(pid, fd);
  if (fd < 0) return failure(errno);
  if (got > 0) return failure(child_error);  // and the child is waited for
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), fd_(std::exchange(other.fd_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  Destroy();
  pid_ = std::exchange(other.pid_, -1);
  fd_ = std::exchange(other.fd_, -1);
  return *this;
}

ChildProcess::~ChildProcess() { Destroy(); }

void ChildProcess::Destroy() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

void ChildProcess::Signal(int number) const {
  // It has not been waited for, so its id is not anybody else's.
  if (pid_ > 0) kill(pid_, number);
}

std::optional<ChildProcess::End> ChildProcess::WaitFor(Duration timeout) {
  if (pid_ < 0) return std::nullopt;
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
  pollfd ended{fd_, POLLIN, 0};
  poll(&ended, 1, static_cast<int>(std::clamp<std::int64_t>(ms, 0, 1 << 30)));
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) return std::nullopt;
  pid_ = -1;
  close(std::exchange(fd_, -1));
  return EndText(info);
}

}  // namespace postkeeper
