// What all loads on postkeeperd share: channels, scratch queues, the message they send.
#ifndef POSTKEEPER_BENCH_SERVICE_CLIENT_H_
#define POSTKEEPER_BENCH_SERVICE_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace postkeeper::bench {

// Nothing takes longer: every call has a deadline, so that no load hangs.
inline constexpr auto kCallTimeout = std::chrono::seconds(30);

// A channel with a connection of its own: channels made with equal arguments would share one.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);
// UNAVAILABLE if nobody answers there within the time.
absl::Status WaitUntilReachable(const std::string& address, std::chrono::seconds timeout);

void SetDeadline(grpc::ClientContext& context, std::chrono::system_clock::duration timeout);
absl::Status ToStatus(const grpc::Status& status, std::string_view what);

// `size` letters, always the same ones.
std::string MakeBody(int size);

// A queue (or topic) of our own for one measurement, with limits that the measurement does not reach. The destructor
// empties and deletes it; if that fails, it says so on stderr.
class ScratchLog {
 public:
  enum class Kind { kQueue, kTopic };

  static absl::StatusOr<std::unique_ptr<ScratchLog>> Make(const std::string& address, Kind kind);
  ~ScratchLog();
  ScratchLog(const ScratchLog&) = delete;
  ScratchLog& operator=(const ScratchLog&) = delete;

  const std::string& name() const { return name_; }

 private:
  ScratchLog(std::shared_ptr<grpc::Channel> channel, Kind kind, std::string name);

  const std::shared_ptr<grpc::Channel> channel_;
  const Kind kind_;
  const std::string name_;
};

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_SERVICE_CLIENT_H_
