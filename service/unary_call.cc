#include "service/unary_call.h"

#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "service/grpc_status.h"

namespace postkeeper {

// The reactor of a call that wants to know when its caller goes.
class UnaryCall::CancelWatch : public grpc::ServerUnaryReactor {
 public:
  void OnCancelDo(std::function<void()> give_up) {
    {
      absl::MutexLock lock(&mutex_);
      if (!is_cancelled_) {
        give_up_ = std::move(give_up);
        return;
      }
    }
    give_up();
  }

  bool is_cancelled() const { return is_cancelled_; }

  void OnCancel() override {
    std::function<void()> give_up;
    {
      absl::MutexLock lock(&mutex_);
      is_cancelled_ = true;
      give_up = std::move(give_up_);
    }
    if (give_up) give_up();
  }

  void OnDone() override { delete this; }

 private:
  ~CancelWatch() override = default;

  std::atomic<bool> is_cancelled_ = false;
  absl::Mutex mutex_;
  std::function<void()> give_up_ ABSL_GUARDED_BY(mutex_);
};

UnaryCall::UnaryCall(Desk& desk, MethodMetrics& metrics, grpc::CallbackServerContext& context,
                     grpc::ByteBuffer& response, IfCallerGoes if_caller_goes)
    : desk_(desk),
      metrics_(metrics),
      context_(context),
      response_(response),
      cancel_watch_(if_caller_goes == IfCallerGoes::kGiveUp ? new CancelWatch : nullptr),
      reactor_(cancel_watch_ != nullptr ? cancel_watch_ : context.DefaultReactor()),
      started_at_(desk.environment.Now()) {
  metrics_.Started();
  metrics_.MessageReceived();
}

bool UnaryCall::Enter() {
  absl::Status status = desk_.gate.EnterCall();
  if (status.ok()) {
    is_inside_ = true;
    const absl::StatusOr<Broker*> broker = desk_.BrokerOrError();
    if (broker.ok()) {
      broker_ = *broker;
      return true;
    }
    status = broker.status();
  }
  Fail(status);
  return false;
}

void UnaryCall::OnCancelDo(std::function<void()> give_up) { cancel_watch_->OnCancelDo(std::move(give_up)); }

void UnaryCall::Answer(grpc::Slice bytes) {
  grpc::ByteBuffer encoded(&bytes, 1);
  response_.Swap(&encoded);
  metrics_.MessageSent();
  End(grpc::Status::OK);
}

void UnaryCall::Fail(const absl::Status& error) {
  grpc::Status status;
  const std::string pushback =
      ToGrpcStatus(error, {.replica = desk_.replica, .is_safe_to_repeat = is_safe_to_repeat_}, &status);
  if (!pushback.empty()) context_.AddTrailingMetadata(kRetryPushbackTrailer, pushback);
  FailPlainly(std::move(status));
}

void UnaryCall::FailPlainly(grpc::Status status) { End(std::move(status)); }

// Once Finish is called gRPC may take everything away, the desk included.
void UnaryCall::End(grpc::Status status) {
  const bool is_cancelled = cancel_watch_ != nullptr && cancel_watch_->is_cancelled();
  const grpc::StatusCode code = is_cancelled ? grpc::StatusCode::CANCELLED : status.error_code();
  metrics_.Handled(static_cast<int>(code), desk_.environment.Now() - started_at_);
  if (is_inside_) desk_.gate.LeaveCall();
  grpc::ServerUnaryReactor* reactor = reactor_;
  delete this;
  reactor->Finish(std::move(status));
}

}  // namespace postkeeper
