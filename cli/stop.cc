#include "cli/stop.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace postkeeper::cli {

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

SignalWatcher::SignalWatcher(StopRequest& stop, std::function<void()> before_exit)
    : stop_(stop), before_exit_(std::move(before_exit)) {
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
    pollfd fds[] = {{signal_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return;
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

}  // namespace postkeeper::cli
