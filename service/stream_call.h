// What all streams have in common: sending one frame at a time, reading one at a time, ending once.
#ifndef POSTKEEPER_SERVICE_STREAM_CALL_H_
#define POSTKEEPER_SERVICE_STREAM_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/slice.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "service/broker.h"
#include "service/desk.h"
#include "service/grpc_status.h"
#include "service/log_handle.h"
#include "service/owner_route.h"
#include "service/peers.h"

namespace postkeeper {

// The sending side. A stream puts what is to be sent where its TakeFrame finds it and calls Pump; whoever finds no
// frame on its way sends the next one. So at most one write is outstanding, and a client that does not read is felt as
// frames that stay. The first End decides: once TakeFrame has nothing more, the stream finishes with its status.
//
// No write carries a buffer hint: a first write that is held back holds back the initial metadata with it, and is then
// never done (gRPC 1.51).
//
// Finish is called by the one who may send, and only while no read is being started: after it, gRPC may destroy its
// half of the stream at any time. This object lives on as long as somebody holds it by shared_ptr; gRPC does until
// OnDone.
//
// Threads: all functions are thread-safe. `mutex_` also guards what TakeFrame looks at. No gRPC function is called
// under it.
template <typename Reactor>
class StreamCall : public Reactor, public OpenStream, public std::enable_shared_from_this<StreamCall<Reactor>> {
 public:
  // `service` and `method` are literals.
  StreamCall(Desk& desk, std::string_view service, std::string_view method, grpc::CallbackServerContext& context)
      : desk_(desk),
        context_(context),
        deadline_(context.deadline()),
        is_relayed_(IsRelayed(context)),
        metrics_(desk.methods.Of(service)[method]),
        path_(Cat("/", service, "/", method)),
        started_at_(desk.environment.Now()) {
    metrics_.Started();
  }

  // Holds this object for gRPC. To be called once, by the handler, before anything else.
  void Hold() { self_ = this->shared_from_this(); }
  // False: refused, and the stream ends. Then `broker_` is not set.
  bool Enter() {
    absl::Status status = desk_.gate.EnterStream(self_);
    if (status.ok()) {
      const absl::StatusOr<Broker*> broker = desk_.BrokerOrError();
      if (broker.ok()) {
        broker_ = *broker;
        return true;
      }
      status = broker.status();
    }
    End(status);
    return false;
  }

  void EndNow(absl::Status why) override {
    {
      absl::MutexLock lock(&mutex_);
      drops_frames_ = true;
    }
    End(std::move(why));
  }
  void Break() override { context_.TryCancel(); }

  void OnWriteDone(bool ok) final {
    if (ok) metrics_.MessageSent();
    {
      absl::MutexLock lock(&mutex_);
      is_sending_ = false;
      outgoing_.Clear();
      if (!ok) drops_frames_ = true;
    }
    if (!ok) End(MakeError(Reason::kCallCancelled, "the stream is broken"));
    if (const std::shared_ptr<StreamRelay> relay = FindRelay()) {
      relay->ReadMore();
    } else {
      OnFrameSent();
    }
    Pump();
  }

  void OnCancel() final {
    is_cancelled_ = true;
    EndNow(MakeError(Reason::kCallCancelled, "the stream was cancelled"));
  }

  void OnDone() final {
    const int code = is_cancelled_ ? static_cast<int>(grpc::StatusCode::CANCELLED) : code_;
    metrics_.Handled(code, desk_.environment.Now() - started_at_);
    desk_.gate.LeaveStream(this);
    const std::shared_ptr<StreamCall> last_hold = std::move(self_);
  }

 protected:
  // Moves the next frame out; false if there is none.
  // May set `end_` when it returns false.
  virtual bool TakeFrame(grpc::Slice& frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // A write is done, or failed. On gRPC's thread.
  virtual void OnFrameSent() {}
  // Called once, by the first End.
  virtual void OnEnding() {}

  void End(absl::Status status) {
    const auto keeps_alive = this->shared_from_this();
    bool is_first = false;
    {
      absl::MutexLock lock(&mutex_);
      is_first = !end_.has_value();
      if (is_first) end_ = std::move(status);
    }
    Pump();
    if (!is_first) return;
    if (const std::shared_ptr<StreamRelay> relay = FindRelay()) {
      relay->Cancel();
    } else {
      OnEnding();
    }
  }
  bool IsEnding() {
    absl::MutexLock lock(&mutex_);
    return end_.has_value();
  }
  bool is_cancelled() const { return is_cancelled_; }

  void Pump() {
    std::optional<absl::Status> end;
    {
      absl::MutexLock lock(&mutex_);
      if (is_sending_ || is_finished_) return;
      grpc::Slice frame;
      if (!drops_frames_ && (relay_ ? TakeRelayedFrame(frame) : TakeFrame(frame))) {
        is_sending_ = true;
        grpc::ByteBuffer bytes(&frame, 1);
        outgoing_.Swap(&bytes);
      } else if (end_ && reads_starting_ == 0) {
        is_finished_ = true;
        end = end_;
      } else {
        return;
      }
    }
    if (end) {
      FinishWith(*end);
    } else {
      this->StartWrite(&outgoing_);
    }
  }

  // ---- Relaying: another replica works for the log, and every frame goes to it and comes from it as it is.

  // True: nothing is left to do here, since the stream is relayed from now on, or ends. On the log's strand.
  // `first_frame` has been read; after it, no read is outstanding.
  Task<bool> RelayIfElsewhere(LogHandle log, grpc::ByteBuffer first_frame) {
    const auto keeps_alive = this->shared_from_this();
    Link link(*this, std::move(first_frame));
    const OwnerRoute route = co_await RouteToOwner(desk_.environment, std::move(log), is_relayed_, link);
    if (route.kind == OwnerRoute::Kind::kHere) co_return false;
    if (route.kind == OwnerRoute::Kind::kNowhere) {
      desk_.metrics.relays().StreamRelayed(RelayResult::kNoOwner);
      End(NotOwner(route.owner));
    }
    co_return true;
  }

  std::shared_ptr<StreamRelay> FindRelay() {
    absl::MutexLock lock(&mutex_);
    return relay_;
  }

  bool has_relay() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return relay_ != nullptr; }

  // Everything is relayed from now on. The peer may have taken the first frame already.
  virtual void OnRelayStarted() {}
  // The peer has taken a frame, and the next one may be read.
  virtual void OnRelayReady() {}
  // What the end of a relayed stream means here, when the peer has ended it with OK.
  virtual absl::Status EndOfRelay() { return absl::OkStatus(); }

  Desk& desk_;
  // gRPC takes it away after OnDone, and what was begun for the stream may go on behind that: only for gRPC's own
  // functions, and for FinishWith.
  grpc::CallbackServerContext& context_;
  const std::chrono::system_clock::time_point deadline_;
  const bool is_relayed_;  // by another replica
  MethodMetrics& metrics_;
  Broker* broker_ = nullptr;
  // Decides what OUTCOME_UNKNOWN is called.
  std::atomic<bool> is_safe_to_repeat_ = true;

  absl::Mutex mutex_;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  int reads_starting_ ABSL_GUARDED_BY(mutex_) = 0;  // threads inside StartRead

 private:
  // Over gRPC. What the peer says later, also that it isn't the owner, ends the stream.
  class Link : public PeerLink {
   public:
    Link(StreamCall& stream, grpc::ByteBuffer first_frame) : stream_(stream), first_frame_(std::move(first_frame)) {}

    Task<bool> Connect(std::string address) override {
      channel_ = stream_.desk_.peers->ChannelTo(address);
      co_return co_await WaitUntilConnected(stream_.desk_.environment, channel_);
    }
    Task<Outcome> Relay(std::string) override {
      if (!stream_.IsEnding()) stream_.StartRelay(channel_, first_frame_);
      co_return Outcome::kAnswered;
    }
    bool IsOver() const override { return stream_.IsEnding(); }

   private:
    StreamCall& stream_;
    const grpc::ByteBuffer first_frame_;
    std::shared_ptr<grpc::Channel> channel_;
  };

  void StartRelay(const std::shared_ptr<grpc::Channel>& channel, const grpc::ByteBuffer& first_frame) {
    StreamRelay::Listener listener;
    listener.on_frame = [self = this->shared_from_this()](grpc::ByteBuffer frame) {
      {
        absl::MutexLock lock(&self->mutex_);
        self->relayed_frame_ = std::move(frame);
      }
      self->Pump();
    };
    listener.on_sent = [self = this->shared_from_this()] { self->OnRelayReady(); };
    listener.on_end = [self = this->shared_from_this()](RelayedAnswer answer) { self->EndRelayed(std::move(answer)); };
    const RelayedCall call{path_, desk_.replica, deadline_};
    const std::shared_ptr<StreamRelay> relay = StreamRelay::Start(channel, call, first_frame, std::move(listener));
    bool is_ending = false;
    {
      absl::MutexLock lock(&mutex_);
      relay_ = relay;
      is_ending = end_.has_value();
    }
    if (is_ending) relay->Cancel();
    OnRelayStarted();
    Pump();  // a frame may have come already
  }

  void EndRelayed(RelayedAnswer answer) {
    absl::Status end = absl::OkStatus();
    const bool is_broken = IsUnexplained(answer.status);
    desk_.metrics.relays().StreamRelayed(is_broken ? RelayResult::kBroken : RelayResult::kAnswered);
    if (is_broken) {
      end = RelayBroken(answer.status.error_message());
    } else if (answer.status.ok()) {
      end = EndOfRelay();
    } else {
      absl::MutexLock lock(&mutex_);
      if (!end_) relayed_end_ = std::move(answer);
    }
    End(end);
  }

  bool TakeRelayedFrame(grpc::Slice& frame) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!relayed_frame_) return false;
    const grpc::ByteBuffer bytes = *std::exchange(relayed_frame_, std::nullopt);
    return bytes.DumpToSingleSlice(&frame).ok();
  }

  void FinishWith(const absl::Status& error) {
    grpc::Status status;
    std::string pushback;
    if (relayed_end_) {
      status = std::move(relayed_end_->status);
      pushback = std::move(relayed_end_->pushback);
    } else {
      pushback = ToGrpcStatus(error, {.replica = desk_.replica, .is_safe_to_repeat = is_safe_to_repeat_}, &status);
    }
    if (!pushback.empty()) context_.AddTrailingMetadata(kRetryPushbackTrailer, pushback);
    code_ = static_cast<int>(status.error_code());
    this->Finish(std::move(status));
  }

  const std::string path_;
  const Instant started_at_;
  std::shared_ptr<StreamCall> self_;  // for gRPC
  int code_ = 0;                      // set before Finish
  std::atomic<bool> is_cancelled_ = false;
  grpc::ByteBuffer outgoing_;  // gRPC's while is_sending_
  bool is_sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool drops_frames_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<StreamRelay> relay_ ABSL_GUARDED_BY(mutex_);             // set at most once
  std::optional<grpc::ByteBuffer> relayed_frame_ ABSL_GUARDED_BY(mutex_);  // from the peer, to be sent on
  std::optional<RelayedAnswer> relayed_end_;                               // set before the first End, if by the peer
};

// A stream of which both sides send. One read is outstanding at a time, and none while MayRead says no: the client is
// then held by HTTP/2's flow control. ReadMore is to be called whenever MayRead may have changed its mind.
class BidiCall : public StreamCall<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>> {
 public:
  using StreamCall::StreamCall;

  void OnReadDone(bool ok) final {
    const std::shared_ptr<StreamRelay> relay = FindRelay();
    if (ok) metrics_.MessageReceived();
    if (ok && !relay) OnFrame(incoming_);
    {
      absl::MutexLock lock(&mutex_);
      is_reading_ = false;
      if (!ok) is_input_over_ = true;
    }
    if (relay) {
      if (!ok) return relay->HalfClose();
      grpc::ByteBuffer frame;
      frame.Swap(&incoming_);
      relay->Send(frame);  // OnRelayReady reads the next one
    } else if (ok) {
      ReadMore();
    } else {
      OnInputEnd();
    }
  }

 protected:
  virtual bool MayRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // On gRPC's thread, one after the other.
  virtual void OnFrame(const grpc::ByteBuffer& bytes) = 0;
  // The client has half-closed, or the stream is broken, or it has ended.
  virtual void OnInputEnd() = 0;

  // The caller holds this object, or is gRPC's.
  void ReadMore() {
    {
      absl::MutexLock lock(&mutex_);
      // A frame that is read before the relay is known here would be taken for one of ours.
      if (is_reading_ || is_input_over_ || end_ || !((is_peer_ready_ && has_relay()) || MayRead())) return;
      is_peer_ready_ = false;
      is_reading_ = true;
      ++reads_starting_;
    }
    StartRead(&incoming_);
    bool is_ending = false;
    {
      absl::MutexLock lock(&mutex_);
      --reads_starting_;
      is_ending = end_.has_value();
    }
    if (is_ending) Pump();
  }
  bool is_input_over() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return is_input_over_; }

  void OnRelayStarted() override {
    {
      absl::MutexLock lock(&mutex_);
      if (!is_peer_ready_) return;  // OnRelayReady follows
    }
    ReadMore();
  }
  // One frame is read when the one before it is on its way to the peer.
  void OnRelayReady() final {
    {
      absl::MutexLock lock(&mutex_);
      is_peer_ready_ = true;
    }
    ReadMore();
  }

 private:
  grpc::ByteBuffer incoming_;  // gRPC's while a read is outstanding
  bool is_reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_input_over_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_peer_ready_ ABSL_GUARDED_BY(mutex_) = false;  // to take a frame, which is not yet being read
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_STREAM_CALL_H_
