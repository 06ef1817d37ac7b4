// Connections to the other replicas, and calls that are carried over them.
#ifndef POSTKEEPER_SERVICE_PEERS_H_
#define POSTKEEPER_SERVICE_PEERS_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "zkstore/environment.h"
#include "zkstore/task.h"

namespace postkeeper {

// One channel for each address, made when it is first asked for. Thread-safe.
class Peers {
 public:
  // Past it the channel of some other address is given up; calls on their way keep it.
  static constexpr std::size_t kChannelsMax = 256;

  std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address);
  // Whether the connection to it stands; if not, one is tried.
  bool IsConnectedTo(const std::string& address);

 private:
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);
};

// False: not connected within a second. So nothing needs to be sent to a replica that is gone, and what was not sent is
// known not to have happened.
Task<bool> WaitUntilConnected(Environment& environment, std::shared_ptr<grpc::Channel> channel);

// NO_OWNER, for a call that came from another replica: this one is not the owner either.
absl::Status NotOwner(std::string_view owner);
// OUTCOME_UNKNOWN.
absl::Status RelayBroken(std::string_view why);

// What the caller of a relayed call wants from it.
struct RelayedCall {
  std::string path;     // "/postkeeper.v1.MessageService/Enqueue"
  std::string replica;  // who relays, for the header
  std::chrono::system_clock::time_point deadline;
};

// Whether a call comes from another replica. Such a call is not relayed again: when two replicas disagree about an
// owner, the first asks anew.
bool IsRelayed(const grpc::CallbackServerContext& context);

// As the peer gave it.
struct RelayedAnswer {
  grpc::Status status;
  grpc::ByteBuffer bytes;
  std::string pushback;  // the value of kRetryPushbackTrailer, or empty
};

// True: the peer does not own the log; it has done nothing.
bool SaysNotOwner(const grpc::Status& status);
// True: the connection broke, or the peer is not of postkeeper; whatever was sent may have been carried out.
bool IsUnexplained(const grpc::Status& status);

// A unary call at a peer. `done` is called once, on gRPC's thread. Cancel is thread-safe, and may come at any time.
class UnaryRelay : public std::enable_shared_from_this<UnaryRelay> {
 public:
  using Done = std::function<void(RelayedAnswer)>;

  static std::shared_ptr<UnaryRelay> Start(const std::shared_ptr<grpc::Channel>& channel, const RelayedCall& call,
                                           const grpc::ByteBuffer& request, Done done);
  void Cancel() { context_.TryCancel(); }

 private:
  UnaryRelay() = default;

  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
};

// A stream at a peer: one frame at a time in each direction, so that the flow control of both connections meets.
//
// Holds itself until on_end was called. Thread-safe; the functions of the listener come on gRPC's threads, on_end last
// and once.
class StreamRelay : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                    public std::enable_shared_from_this<StreamRelay> {
 public:
  struct Listener {
    std::function<void(grpc::ByteBuffer)> on_frame;  // the next one comes after ReadMore
    std::function<void()> on_sent;                   // Send may be called again
    std::function<void(RelayedAnswer)> on_end;       // without bytes
  };

  static std::shared_ptr<StreamRelay> Start(const std::shared_ptr<grpc::Channel>& channel, const RelayedCall& call,
                                            const grpc::ByteBuffer& first_frame, Listener listener);

  // To be called when no frame is on its way: after on_sent. Behind a HalfClose it sends nothing.
  void Send(const grpc::ByteBuffer& frame);
  void HalfClose();
  void ReadMore();
  void Cancel();

  void OnWriteDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  StreamRelay() = default;
  // gRPC allows new operations only while the call is held; these bracket each of them.
  bool BeginOperation();
  void EndOperation();

  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::ClientContext context_;
  Listener listener_;
  grpc::ByteBuffer outgoing_;          // gRPC's while a write is outstanding
  grpc::ByteBuffer incoming_;          // gRPC's while a read is outstanding
  std::shared_ptr<StreamRelay> self_;  // until OnDone

  absl::Mutex mutex_;
  int operations_starting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool is_sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_half_closing_ ABSL_GUARDED_BY(mutex_) = false;  // as soon as nothing is on its way
  bool is_reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool is_cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_over_ ABSL_GUARDED_BY(mutex_) = false;      // the peer has ended it
  bool is_released_ ABSL_GUARDED_BY(mutex_) = false;  // gRPC's hold
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_PEERS_H_
