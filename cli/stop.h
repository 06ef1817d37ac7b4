// How a running command is asked to stop.
#ifndef POSTKEEPER_CLI_STOP_H_
#define POSTKEEPER_CLI_STOP_H_

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

namespace postkeeper::cli {

// A request to stop that many can wait for. Thread-safe. Once made it stays.
class StopRequest {
 public:
  // Runs what OnRequest was given, once, on this thread.
  void Request();
  bool is_requested() const;

  // Runs `function` at the request, or now if it was made already. One at a time; nullptr takes it back, and returns
  // only when it does not run any more. The function must not call back into this object.
  void OnRequest(std::function<void()> function);

 private:
  mutable std::mutex mu_;
  // Both guarded by mu_, which is held while the function runs.
  bool is_requested_ = false;
  std::function<void()> function_;
};

// While it lives, SIGINT and SIGTERM make a StopRequest; a second one calls `before_exit` and ends the process at once
// with 128 + the signal's number. If `output_fd` is a pipe, it also makes one as soon as nobody reads it
// any more: who waits for messages would else learn of it only from the next one.
//
// Blocks the two signals in the calling thread, and so in all threads that it starts later; make it before any other
// thread exists. Children must unblock them (RunChild does).
class SignalWatcher {
 public:
  SignalWatcher(StopRequest& stop, std::function<void()> before_exit, int output_fd = -1);
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

  bool has_lost_reader() const { return has_lost_reader_; }

 private:
  void Watch();

  StopRequest& stop_;
  const std::function<void()> before_exit_;
  const int output_fd_;
  std::atomic<bool> has_lost_reader_ = false;
  int wake_fd_ = -1;
  int signal_fd_ = -1;
  std::thread thread_;
};

// A reader that goes away (`postkeeper subscribe t | head -1`) is told by the failed write, not by our sudden death.
void IgnoreBrokenPipes();

// Whichever of standard input, output and error is closed gets /dev/null, opened so that using it fails (but for
// standard error). Else the next file or socket would get its number, and our output. For .preinit_array, where nothing
// is initialized yet: it makes system calls and no others.
void FillClosedStandardStreams(int, char**, char**);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_STOP_H_
