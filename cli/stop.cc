#include "cli/stop.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace postkeeper::cli {
namespace {

bool IsPipe(int fd) {
  struct stat info = {};
  return fstat(fd, &info) == 0 && S_ISFIFO(info.st_mode);
}

}  // namespace

void StopRequest::Request() {
  const std::lock_guard lock(mu_);
  if (std::exchange(is_requested_, true)) return;
  if (function_) function_();
}

bool StopRequest::is_requested() const {
  const std::lock_guard lock(mu_);
  return is_requested_;
}

void StopRequest::OnRequest(std::function<void()> function) {
  const std::lock_guard lock(mu_);
  function_ = std::move(function);
  if (is_requested_ && function_) function_();
}

SignalWatcher::SignalWatcher(StopRequest& stop, std::function<void()> before_exit, int output_fd)
    : stop_(stop), before_exit_(std::move(before_exit)), output_fd_(IsPipe(output_fd) ? output_fd : -1) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  wake_fd_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Watch(); });
}

SignalWatcher::~SignalWatcher() {
  eventfd_write(wake_fd_, 1);
  thread_.join();
  close(wake_fd_);
  close(signal_fd_);
}

void SignalWatcher::Watch() {
  for (;;) {
    // Of an output without a reader poll tells unasked.
    pollfd fds[] = {{signal_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}, {has_lost_reader_ ? -1 : output_fd_, 0, 0}};
    if (poll(fds, 3, -1) < 0) continue;
    if (fds[1].revents != 0) return;
    if (fds[2].revents != 0) {
      has_lost_reader_ = true;
      stop_.Request();
    }
    if (fds[0].revents == 0) continue;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof info) != sizeof info) continue;
    if (stop_.is_requested()) {
      before_exit_();
      _exit(128 + static_cast<int>(info.ssi_signo));
    }
    stop_.Request();
  }
}

void IgnoreBrokenPipes() { std::signal(SIGPIPE, SIG_IGN); }

void FillClosedStandardStreams(int, char**, char**) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    // The lowest free number is the one that is missing.
    const int mode = fd == STDOUT_FILENO ? O_RDONLY : O_WRONLY;
    if (syscall(SYS_fcntl, fd, F_GETFD) < 0) syscall(SYS_openat, AT_FDCWD, "/dev/null", mode);
  }
}

}  // namespace postkeeper::cli
