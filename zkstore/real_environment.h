// The world of postkeeperd: real threads, real clocks, the kernel's randomness.
#ifndef POSTKEEPER_ZKSTORE_REAL_ENVIRONMENT_H_
#define POSTKEEPER_ZKSTORE_REAL_ENVIRONMENT_H_

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "zkstore/environment.h"

namespace postkeeper {

// An Environment of `threads` threads around one event loop.
//
// How it works: the threads start in the constructor and run whatever is posted until Stop. Stop lets every function
// that is running come to its end; what is still queued then never runs, and is destroyed with the environment
// (coroutines that are waiting too: whatever their frames refer to must outlive the environment, or they must have
// ended before). So an orderly shutdown first waits for its own work, then calls Stop and Join.
//
// Now() counts the time a suspended machine slept, timers do not: a timer may come late after a resume, never early.
//
// Threads: all calls are thread-safe. Join and the destructor must not be called on one of the environment's threads.
class RealEnvironment : public Environment {
 public:
  // The threads are called `name`-0, `name`-1 ...; at most 12 characters of the name are shown. At least one thread.
  explicit RealEnvironment(int threads, std::string name = "postkeeper");
  // Stops and joins.
  ~RealEnvironment() override;
  RealEnvironment(const RealEnvironment&) = delete;
  RealEnvironment& operator=(const RealEnvironment&) = delete;

  // Returns at once; may be called several times and from any thread.
  void Stop();
  // Waits until all threads have ended, which they only do after Stop. Called by one thread at a time.
  void Join();

  Instant Now() const override;
  WallTime WallNow() const override;
  void FillRandom(std::span<std::uint8_t> bytes) override;
  asio::any_io_executor executor() override;
  asio::any_io_executor MakeStrand() override;
  std::unique_ptr<Timer> MakeTimer(asio::any_io_executor executor) override;

 private:
  asio::io_context loop_;
  asio::executor_work_guard<asio::io_context::executor_type> keeps_running_;
  std::vector<std::thread> threads_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_REAL_ENVIRONMENT_H_
