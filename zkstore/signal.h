// A place to wait: for being notified, or for time to pass.
#ifndef POSTKEEPER_ZKSTORE_SIGNAL_H_
#define POSTKEEPER_ZKSTORE_SIGNAL_H_

#include <memory>

#include "zkstore/environment.h"
#include "zkstore/task.h"

namespace postkeeper {

// Coroutines wait on it; anything on the same strand wakes them. A notification while nobody waits is kept (once), so
// that a change seen between two waits is not missed.
//
// Belongs to one strand: all calls, and the waiting coroutines, run there. Waiting coroutines hold what they need
// alive; a Signal may be destroyed while nobody waits.
class Signal {
 public:
  Signal(Environment& environment, asio::any_io_executor strand);
  ~Signal();
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  // Wakes all that wait now, or else the next to wait.
  void Notify();

  // Returns true when notified, false when `timeout` passed first.
  Task<bool> WaitFor(Duration timeout);
  Task<bool> Wait();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Resumes after `duration` on the coroutine's executor.
Task<void> SleepFor(Environment& environment, Duration duration);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_SIGNAL_H_
