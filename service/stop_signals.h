// SIGTERM and SIGINT, as the program wants them.
#ifndef POSTKEEPER_SERVICE_STOP_SIGNALS_H_
#define POSTKEEPER_SERVICE_STOP_SIGNALS_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "zkstore/environment.h"

namespace postkeeper {

// To be made on the main thread before any other thread is started, so that none of them is interrupted; a thread of
// its own receives the signals. Before StopInOrder the first signal ends the process at once with code 0: there is
// nothing to lose yet. After it the first signal is what WaitFor returns, and the second one ends the process at once
// with code 128 + its number (143 for SIGTERM, 130 for SIGINT), as if it had been killed. Never destroyed while the
// process lives.
class StopSignals {
 public:
  StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  void StopInOrder();
  // True as soon as the process was asked to stop; false after `timeout`.
  bool WaitFor(Duration timeout);

 private:
  [[noreturn]] void Receive();

  absl::Mutex mutex_;
  bool stops_in_order_ ABSL_GUARDED_BY(mutex_) = false;
  bool was_asked_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_STOP_SIGNALS_H_
