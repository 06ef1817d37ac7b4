// What all streams have in common: sending one frame at a time, reading one at a time, ending once.
#ifndef POSTKEEPER_SERVICE_STREAM_CALL_H_
#define POSTKEEPER_SERVICE_STREAM_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/slice.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "service/desk.h"
#include "service/grpc_status.h"

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
  StreamCall(Desk& desk, MethodMetrics& metrics, grpc::CallbackServerContext& context)
      : desk_(desk), context_(context), metrics_(metrics), started_at_(desk.environment.Now()) {
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
    OnFrameSent();
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
    if (is_first) OnEnding();
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
      if (!drops_frames_ && TakeFrame(frame)) {
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

  Desk& desk_;
  grpc::CallbackServerContext& context_;
  MethodMetrics& metrics_;
  Broker* broker_ = nullptr;
  // Decides what OUTCOME_UNKNOWN is called.
  std::atomic<bool> is_safe_to_repeat_ = true;

  absl::Mutex mutex_;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  int reads_starting_ ABSL_GUARDED_BY(mutex_) = 0;  // threads inside StartRead

 private:
  void FinishWith(const absl::Status& error) {
    grpc::Status status;
    const std::string pushback =
        ToGrpcStatus(error, {.replica = desk_.replica, .is_safe_to_repeat = is_safe_to_repeat_}, &status);
    if (!pushback.empty()) context_.AddTrailingMetadata(kRetryPushbackTrailer, pushback);
    code_ = static_cast<int>(status.error_code());
    this->Finish(std::move(status));
  }

  const Instant started_at_;
  std::shared_ptr<StreamCall> self_;  // for gRPC
  int code_ = 0;                      // set before Finish
  std::atomic<bool> is_cancelled_ = false;
  grpc::ByteBuffer outgoing_;  // gRPC's while is_sending_
  bool is_sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool drops_frames_ ABSL_GUARDED_BY(mutex_) = false;
};

// A stream of which both sides send. One read is outstanding at a time, and none while MayRead says no: the client is
// then held by HTTP/2's flow control. ReadMore is to be called whenever MayRead may have changed its mind.
class BidiCall : public StreamCall<grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>> {
 public:
  using StreamCall::StreamCall;

  void OnReadDone(bool ok) final {
    if (ok) {
      metrics_.MessageReceived();
      OnFrame(incoming_);
    }
    {
      absl::MutexLock lock(&mutex_);
      is_reading_ = false;
      if (!ok) is_input_over_ = true;
    }
    if (ok) {
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
      if (is_reading_ || is_input_over_ || end_ || !MayRead()) return;
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

 private:
  grpc::ByteBuffer incoming_;  // gRPC's while a read is outstanding
  bool is_reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_input_over_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_STREAM_CALL_H_
