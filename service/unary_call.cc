#include "service/unary_call.h"

#include "service/grpc_status.h"

namespace postkeeper {

UnaryCall::UnaryCall(Desk& desk, MethodMetrics& metrics, grpc::CallbackServerContext& context,
                     grpc::ByteBuffer& response)
    : desk_(desk), metrics_(metrics), context_(context), response_(response), started_at_(desk.environment.Now()) {
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

void UnaryCall::OnCancelDo(std::function<void()> give_up) {
  {
    absl::MutexLock lock(&mutex_);
    if (!is_cancelled_) {
      give_up_ = std::move(give_up);
      return;
    }
  }
  give_up();
}

void UnaryCall::OnCancel() {
  std::function<void()> give_up;
  {
    absl::MutexLock lock(&mutex_);
    is_cancelled_ = true;
    give_up = std::move(give_up_);
  }
  if (give_up) give_up();
}

void UnaryCall::Answer(grpc::Slice bytes) {
  grpc::ByteBuffer encoded(&bytes, 1);
  response_.Swap(&encoded);
  metrics_.MessageSent();
  Finish(grpc::Status::OK);
}

void UnaryCall::Fail(const absl::Status& error) {
  grpc::Status status;
  const std::string pushback =
      ToGrpcStatus(error, {.replica = desk_.replica, .is_safe_to_repeat = is_safe_to_repeat_}, &status);
  if (!pushback.empty()) context_.AddTrailingMetadata(kRetryPushbackTrailer, pushback);
  FailPlainly(std::move(status));
}

void UnaryCall::FailPlainly(grpc::Status status) {
  code_ = static_cast<int>(status.error_code());
  Finish(std::move(status));
}

void UnaryCall::OnDone() {
  const int code = is_cancelled_ ? static_cast<int>(grpc::StatusCode::CANCELLED) : code_;
  metrics_.Handled(code, desk_.environment.Now() - started_at_);
  if (is_inside_) desk_.gate.LeaveCall();
  delete this;
}

}  // namespace postkeeper
