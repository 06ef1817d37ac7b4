#include "service/stop_signals.h"

#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/time/time.h"
#include "service/logging.h"

namespace postkeeper {
namespace {

sigset_t StoppingSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

[[noreturn]] void ExitAtOnce(int code) {
  FlushLog();
  std::_Exit(code);
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = StoppingSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::thread([this] { Receive(); }).detach();
}

void StopSignals::StopInOrder() {
  absl::MutexLock lock(&mutex_);
  stops_in_order_ = true;
}

bool StopSignals::WaitFor(Duration timeout) {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&was_asked_), absl::FromChrono(timeout));
  return was_asked_;
}

void StopSignals::Receive() {
  const sigset_t set = StoppingSignals();
  while (true) {
    int number = 0;
    if (sigwait(&set, &number) != 0) continue;
    const std::string_view name = number == SIGTERM ? "SIGTERM" : "SIGINT";
    absl::MutexLock lock(&mutex_);
    if (!stops_in_order_) {
      LogInfo("stopped before it was up", {{"signal", name}});
      ExitAtOnce(0);
    }
    if (was_asked_) {
      LogWarning("a second signal: ends at once", {{"signal", name}});
      ExitAtOnce(128 + number);
    }
    LogInfo("stopping", {{"signal", name}});
    was_asked_ = true;
  }
}

}  // namespace postkeeper
