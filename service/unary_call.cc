#include "service/unary_call.h"

#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/post.hpp>
#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "service/grpc_status.h"
#include "service/owner_route.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

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

  // Cancelled when the caller goes.
  void SetRelay(std::shared_ptr<UnaryRelay> relay) {
    {
      absl::MutexLock lock(&mutex_);
      if (!is_cancelled_) {
        relay_ = std::move(relay);
        return;
      }
    }
    relay->Cancel();
  }

  bool is_cancelled() const { return is_cancelled_; }

  void OnCancel() override {
    std::function<void()> give_up;
    std::shared_ptr<UnaryRelay> relay;
    {
      absl::MutexLock lock(&mutex_);
      is_cancelled_ = true;
      give_up = std::move(give_up_);
      relay = std::move(relay_);
    }
    if (give_up) give_up();
    if (relay) relay->Cancel();
  }

  void OnDone() override { delete this; }

 private:
  ~CancelWatch() override = default;

  std::atomic<bool> is_cancelled_ = false;
  absl::Mutex mutex_;
  std::function<void()> give_up_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<UnaryRelay> relay_ ABSL_GUARDED_BY(mutex_);
};

UnaryCall::UnaryCall(Desk& desk, const Origin& origin, IfCallerGoes if_caller_goes)
    : desk_(desk),
      origin_(origin),
      metrics_(desk.methods.Of(origin.service)[origin.method]),
      cancel_watch_(if_caller_goes == IfCallerGoes::kGiveUp ? new CancelWatch : nullptr),
      reactor_(cancel_watch_ != nullptr ? cancel_watch_ : origin.context.DefaultReactor()),
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
  origin_.response.Swap(&encoded);
  metrics_.MessageSent();
  End(grpc::Status::OK);
}

void UnaryCall::Fail(const absl::Status& error) {
  grpc::Status status;
  const std::string pushback =
      ToGrpcStatus(error, {.replica = desk_.replica, .is_safe_to_repeat = is_safe_to_repeat_}, &status);
  if (!pushback.empty()) origin_.context.AddTrailingMetadata(kRetryPushbackTrailer, pushback);
  FailPlainly(std::move(status));
}

void UnaryCall::FailPlainly(grpc::Status status) { End(std::move(status)); }

// ---- Relaying

// Over gRPC. Keeps the peer's answer, or its error.
class UnaryCall::Link : public PeerLink {
 public:
  explicit Link(UnaryCall& call) : call_(call) {}

  Task<bool> Connect(std::string address) override {
    channel_ = call_.desk_.peers->ChannelTo(address);
    co_return co_await WaitUntilConnected(call_.desk_.environment, channel_);
  }
  Task<Outcome> Relay(std::string) override {
    answer_ = co_await call_.AskPeer(channel_);
    if (SaysNotOwner(answer_.status)) co_return Outcome::kNotOwner;
    co_return IsUnexplained(answer_.status) ? Outcome::kBroken : Outcome::kAnswered;
  }

  RelayedAnswer& answer() { return answer_; }

 private:
  UnaryCall& call_;
  std::shared_ptr<grpc::Channel> channel_;
  RelayedAnswer answer_;
};

Task<bool> UnaryCall::RelayIfElsewhere(LogHandle log) {
  Link link(*this);
  const OwnerRoute route = co_await RouteToOwner(desk_.environment, std::move(log), IsRelayed(origin_.context), link);
  switch (route.kind) {
    case OwnerRoute::Kind::kHere:
      co_return false;
    case OwnerRoute::Kind::kRelayed:
      desk_.metrics.relays().CallRelayed(RelayResult::kAnswered);
      AnswerRelayed(std::move(link.answer()));
      break;
    case OwnerRoute::Kind::kBroken:
      desk_.metrics.relays().CallRelayed(RelayResult::kBroken);
      Fail(RelayBroken(link.answer().status.error_message()));
      break;
    case OwnerRoute::Kind::kNowhere:
      desk_.metrics.relays().CallRelayed(RelayResult::kNoOwner);
      Fail(NotOwner(route.owner));
      break;
  }
  co_return true;
}

// Not a coroutine: gcc 12 destroys a lambda inside a co_await expression twice.
Task<RelayedAnswer> UnaryCall::AskPeer(std::shared_ptr<grpc::Channel> channel) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(RelayedAnswer)>(
      [this](auto handler, const std::shared_ptr<grpc::Channel>& to) {
        auto executor = asio::get_associated_executor(handler);
        // gRPC wants a function that can be copied.
        auto resume = std::make_shared<decltype(handler)>(std::move(handler));
        const RelayedCall call{Cat("/", origin_.service, "/", origin_.method), desk_.replica,
                               origin_.context.deadline()};
        std::shared_ptr<UnaryRelay> relay =
            UnaryRelay::Start(to, call, origin_.request, [executor, resume](RelayedAnswer answer) {
              asio::post(executor,
                         [resume, answer = std::move(answer)]() mutable { std::move (*resume)(std::move(answer)); });
            });
        if (cancel_watch_ != nullptr) cancel_watch_->SetRelay(std::move(relay));
      },
      asio::use_awaitable, std::move(channel));
}

void UnaryCall::AnswerRelayed(RelayedAnswer answer) {
  if (answer.status.ok()) {
    origin_.response.Swap(&answer.bytes);
    metrics_.MessageSent();
  } else if (!answer.pushback.empty()) {
    origin_.context.AddTrailingMetadata(kRetryPushbackTrailer, answer.pushback);
  }
  End(std::move(answer.status));
}

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
