// Keeps one consumer attached to one source, over as many Consume streams as it takes.
#ifndef POSTKEEPER_CLI_CONSUME_LINK_H_
#define POSTKEEPER_CLI_CONSUME_LINK_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/connection.h"
#include "cli/retry.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace postkeeper::cli {

// What became of one message, once the service has said so.
struct SettledMessage {
  std::string message_id;
  std::string result;   // "acked", "nacked", "released", or the name of the error: "stale_lease" ...
  std::string failure;  // The error as a sentence; "" if there is none.
};

// Called on the thread that reads the stream, with no lock held; may call back into the link.
class ConsumeListener {
 public:
  virtual ~ConsumeListener() = default;
  // The link holds them (and extends their leases) until each was given to Ack or Nack.
  virtual void OnDeliveries(std::vector<v1::Delivery> deliveries) = 0;
  // The stream broke, or the server drains it: what was delivered and not yet begun had better be released, since the
  // next stream brings as much again.
  virtual void OnInterruption() = 0;
  virtual void OnSettled(const SettledMessage& message) = 0;
  virtual void OnNote(const std::string& text) = 0;
};

struct ConsumeLinkOptions {
  std::string source;
  int credit = 100;
  std::optional<Duration> lease_duration;
  std::chrono::milliseconds heartbeat_interval = std::chrono::seconds(5);
  // How long a stream that the server drains is still used for settling, while commands run.
  std::chrono::milliseconds draining_patience = std::chrono::seconds(5);
  // How long a drained link tries to reach a lost server for its last settlements.
  std::chrono::milliseconds settling_patience = std::chrono::seconds(10);
};

// How: the thread in Run() opens streams and reads them; a second one writes, so that reading never waits for writing;
// a watchdog cancels a stream that was silent for three heartbeats. Settlements go through an outbox; those without an
// answer when a stream ends are sent again on the next one. The leases of all that is held are extended every third of
// their length. If postkeeper dies, nothing is released and everything comes again when its lease lapses.
//
// Bounds: what is held is at most one stream's credit and what was begun before it; the outbox and the unanswered
// frames hold at most one entry for each message held.
//
// Thread-safe, except that Run() is called once.
class ConsumeLink {
 public:
  ConsumeLink(Connection& connection, ConsumeLinkOptions options, ConsumeListener& listener);

  // Until the link was drained and everything is settled (no failure), or the service has refused for good, or cannot
  // be reached at the beginning or at the very end.
  Failure Run();

  void Ack(const std::vector<std::string>& tokens);
  void Nack(const std::vector<std::string>& tokens, v1::NackKind kind, const std::string& reason);
  // Nothing is to be settled any more: its lease was lost.
  void Forget(const std::string& token);
  // True if the service has said that somebody else holds the message now.
  bool IsLost(const std::string& token) const;

  // No more deliveries. Run() returns when all that is held has been settled.
  void Drain();
  bool is_draining() const;
  std::size_t held_count() const;

 private:
  using Stream = grpc::ClientReaderWriter<v1::ConsumeRequest, v1::ConsumeResponse>;
  using Clock = std::chrono::steady_clock;

  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<Stream> stream;
  };

  bool WaitForServer(Failure& failure);
  bool OpenStream();
  void ReadStream(Watchdog& watchdog, Retry& retry);
  grpc::Status FinishStream();
  void Handle(v1::ConsumeResponse& response);
  void HandleDeliveries(v1::Deliveries& frame);
  void HandleSettled(const v1::Settled& settled);

  void WriteForever();
  // What is due by the clock; guarded by mu_, true if the outbox got something. Unlocks only to write the half-close.
  bool DoWhatIsDue(std::unique_lock<std::mutex>& lock);
  void ExtendLeases();
  // All guarded by mu_.
  void SetLease(const google::protobuf::Duration& duration);
  bool is_settled() const { return held_.empty() && outbox_.empty() && unanswered_.empty(); }
  void PutIntoOutbox(v1::ConsumeRequest frame);
  std::vector<SettledMessage> Results(const v1::ConsumeRequest& frame, const v1::Settled& settled);

  Connection& connection_;
  const ConsumeLinkOptions options_;
  ConsumeListener& listener_;
  v1::MessageService::Stub stub_;

  mutable std::mutex mu_;
  std::condition_variable changed_;
  // All guarded by mu_.
  std::shared_ptr<Call> call_;  // Null while there is no stream.
  bool is_writing_ = false;
  bool is_half_closed_ = false;
  bool is_draining_ = false;
  bool is_over_ = false;
  bool has_been_open_ = false;
  std::optional<Clock::time_point> server_draining_since_;
  Clock::time_point half_closed_at_;
  Clock::time_point disconnected_at_ = Clock::now();
  Clock::time_point extended_at_ = Clock::now();
  Duration lease_duration_ = std::chrono::seconds(30);
  std::set<std::string> held_;                // Tokens delivered and not settled by us.
  std::set<std::string> lost_;                // Of those, the ones that others hold.
  std::map<std::string, std::string> names_;  // Token to message id, until the settlement is answered.
  std::deque<v1::ConsumeRequest> outbox_;
  std::map<std::int64_t, v1::ConsumeRequest> unanswered_;  // Acks and nacks by sequence.
  std::int64_t sequence_ = 0;
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_CONSUME_LINK_H_
