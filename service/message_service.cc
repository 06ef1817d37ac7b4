#include "service/message_service.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "postkeeper/v1/message.grpc.pb.h"
#include "postkeeper/wire/v1/wire.pb.h"
#include "service/append_stream.h"
#include "service/consume_stream.h"
#include "service/logging.h"
#include "service/owner_route.h"
#include "service/raw_service.h"
#include "service/subscribe_stream.h"
#include "service/unary_call.h"

namespace postkeeper {
namespace {

// A Dequeue that waits ends so long before its deadline, so that an empty answer still arrives.
constexpr Duration kBeforeDeadline = std::chrono::milliseconds(500);
// How often the name of a call is resolved, while what it names is deleted and made again and again.
constexpr int kOpeningsMax = 5;

// ---- Enqueue and Publish

absl::StatusOr<CheckedAppend> ReadAppend(const Desk& desk, const grpc::ByteBuffer& bytes, Name::Kind log_kind) {
  const std::string_view type = log_kind == Name::Kind::kQueue ? "EnqueueRequest" : "PublishRequest";
  wire::v1::AppendRequest request;
  if (absl::Status status = DecodeRequest(bytes, type, request); !status.ok()) return status;
  return CheckAppend(std::move(request),
                     {.log_kind = log_kind, .now = desk.environment.WallNow(), .limits = desk.limits});
}

Task<void> OpenAndAppend(UnaryCall* call, CheckedAppend append, int openings);

// The log was deleted; nothing was written. Its name may be of another one by now.
void AppendToNextOfName(UnaryCall* call, Name::Kind log_kind, const absl::Status& gone, int openings) {
  absl::StatusOr<CheckedAppend> append = ReadAppend(call->desk(), call->request(), log_kind);
  if (openings >= kOpeningsMax || !append.ok()) return call->Fail(gone);
  Spawn(call->desk().environment.executor(), OpenAndAppend(call, *std::move(append), openings + 1));
}

// Each of these runs on the log's strand.
void AppendHere(const LogHandle& log, UnaryCall* call, CheckedAppend append, int openings) {
  const Name::Kind log_kind = append.log->kind;
  log.Append(std::move(append), [call, log_kind, openings](absl::StatusOr<Appended> outcome) {
    if (outcome.ok()) {
      call->Answer(EncodeAppended(*outcome));
    } else if (IsLogGone(outcome.status())) {
      AppendToNextOfName(call, log_kind, outcome.status(), openings);
    } else {
      call->Fail(outcome.status());
    }
  });
}

Task<void> RelayOrAppend(LogHandle log, UnaryCall* call, CheckedAppend append, int openings) {
  const AppendRoute route = co_await RouteAppend(log, SizeOf(append), IsRelayed(call->context()));
  if (route == AppendRoute::kOwner) {
    const bool is_answered = co_await call->RelayIfElsewhere(log);
    if (is_answered) co_return;
  }
  AppendHere(log, call, std::move(append), openings);
}

void AppendTo(const LogHandle& log, UnaryCall* call, CheckedAppend append, int openings) {
  const bool is_here = log.is_serving() || (!IsRelayed(call->context()) && log.HasRoomFor(SizeOf(append)));
  if (is_here) return AppendHere(log, call, std::move(append), openings);
  Spawn(log.strand(), RelayOrAppend(log, call, std::move(append), openings));
}

void PostAppend(LogHandle log, UnaryCall* call, CheckedAppend append, int openings) {
  const asio::any_io_executor strand = log.strand();
  asio::post(strand, [log = std::move(log), call, append = std::move(append), openings]() mutable {
    AppendTo(log, call, std::move(append), openings);
  });
}

Task<void> OpenAndAppend(UnaryCall* call, CheckedAppend append, int openings) {
  absl::StatusOr<LogHandle> log = co_await LogHandle::Open(call->broker(), *append.log);
  if (log.ok()) {
    PostAppend(*std::move(log), call, std::move(append), openings);
  } else {
    call->Fail(log.status());
  }
}

grpc::ServerUnaryReactor* ServeAppend(UnaryCall* call, const grpc::ByteBuffer& bytes, Name::Kind log_kind) {
  grpc::ServerUnaryReactor* reactor = call->reactor();
  absl::StatusOr<CheckedAppend> append = ReadAppend(call->desk(), bytes, log_kind);
  if (!append.ok()) {
    call->Fail(append.status());
    return reactor;
  }
  call->SetSafeToRepeat(append->is_safe_to_repeat());
  if (!call->Enter()) return reactor;
  if (std::optional<LogHandle> log = LogHandle::Find(call->broker(), *append->log)) {
    PostAppend(*std::move(log), call, *std::move(append), 1);
  } else {
    Spawn(call->desk().environment.executor(), OpenAndAppend(call, *std::move(append), 1));
  }
  return reactor;
}

// ---- Dequeue, Ack, Nack, Extend

struct WaitingDequeue {
  CheckedDequeue request;
  std::shared_ptr<QueueEngine::CallHandle> handle;
};

Task<absl::StatusOr<grpc::Slice>> Dequeue(std::shared_ptr<QueueEngine> queue, WaitingDequeue waiting) {
  if (!waiting.request.consumer.empty()) {
    LogDebug("a consumer dequeues", {{"source", queue->full_name()}, {"consumer", waiting.request.consumer}});
  }
  absl::StatusOr<QueueEngine::Dequeued> dequeued =
      co_await queue->Dequeue(std::move(waiting.request), std::move(waiting.handle));
  if (!dequeued.ok()) co_return dequeued.status();
  DeliveryEncoder encoder;
  // The engine has kept to the request's max_bytes.
  for (const Delivery& delivery : dequeued->deliveries) encoder.Add(delivery, std::string::npos);
  co_return encoder.TakeDequeueResponse(dequeued->lease, dequeued->failures);
}

Duration WaitWithin(const CheckedDequeue& dequeue, const grpc::CallbackServerContext& context) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  // A call without a deadline has one beyond what Duration holds.
  if (left > std::chrono::hours(1)) return dequeue.wait;
  const Duration until_answer = std::chrono::duration_cast<Duration>(left) - kBeforeDeadline;
  return std::clamp<Duration>(until_answer, Duration::zero(), dequeue.wait);
}

grpc::ServerUnaryReactor* ServeDequeue(UnaryCall* call, const grpc::ByteBuffer& bytes) {
  grpc::ServerUnaryReactor* reactor = call->reactor();
  const auto check = [call](v1::DequeueRequest&& request) {
    return CheckDequeue(std::move(request), call->desk().limits);
  };
  if (auto dequeue = ReadRequest<v1::DequeueRequest>(call, bytes, check)) {
    dequeue->wait = WaitWithin(*dequeue, call->context());
    const Name source = dequeue->source;
    WaitingDequeue waiting{*std::move(dequeue), std::make_shared<QueueEngine::CallHandle>()};
    call->OnCancelDo([handle = waiting.handle] { handle->Cancel(); });
    RunOnQueue(call, source, IfMissing::kCreate, std::move(waiting), Dequeue);
  }
  return reactor;
}

Task<absl::StatusOr<grpc::Slice>> Settle(std::shared_ptr<QueueEngine> queue, SettleOrders orders) {
  const absl::StatusOr<std::vector<SettleFailure>> failures = co_await queue->Settle(std::move(orders));
  if (!failures.ok()) co_return failures.status();
  co_return EncodeFailures(*failures);
}

grpc::ServerUnaryReactor* ServeAck(UnaryCall* call, const grpc::ByteBuffer& bytes) {
  grpc::ServerUnaryReactor* reactor = call->reactor();
  if (auto ack = ReadRequest<v1::AckRequest>(call, bytes, CheckAck)) {
    SettleOrders orders;
    orders.ack_tokens = std::move(ack->lease_tokens);
    RunOnQueue(call, ack->source, IfMissing::kFail, std::move(orders), Settle);
  }
  return reactor;
}

grpc::ServerUnaryReactor* ServeNack(UnaryCall* call, const grpc::ByteBuffer& bytes) {
  grpc::ServerUnaryReactor* reactor = call->reactor();
  if (auto nack = ReadRequest<v1::NackRequest>(call, bytes, CheckNack)) {
    SettleOrders orders;
    orders.nacks.push_back(std::move(nack->nacks));
    RunOnQueue(call, nack->source, IfMissing::kFail, std::move(orders), Settle);
  }
  return reactor;
}

grpc::ServerUnaryReactor* ServeExtend(UnaryCall* call, const grpc::ByteBuffer& bytes) {
  grpc::ServerUnaryReactor* reactor = call->reactor();
  if (auto extend = ReadRequest<v1::ExtendRequest>(call, bytes, CheckExtend)) {
    SettleOrders orders;
    orders.extensions.push_back(std::move(extend->extensions));
    RunOnQueue(call, extend->source, IfMissing::kFail, std::move(orders), Settle);
  }
  return reactor;
}

// ---- The front desk

using Generated = v1::MessageService;
using RawMessageService =
    RawService<Generated::Service, Generated::WithRawCallbackMethod_Enqueue, Generated::WithRawCallbackMethod_Publish,
               Generated::WithRawCallbackMethod_EnqueueStream, Generated::WithRawCallbackMethod_PublishStream,
               Generated::WithRawCallbackMethod_Dequeue, Generated::WithRawCallbackMethod_Ack,
               Generated::WithRawCallbackMethod_Nack, Generated::WithRawCallbackMethod_Extend,
               Generated::WithRawCallbackMethod_Consume, Generated::WithRawCallbackMethod_Subscribe>::Type;

class MessageService final : public RawMessageService {
  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;
  using Bidi = grpc::ServerBidiReactor<Bytes, Bytes>;

 public:
  explicit MessageService(Desk& desk) : desk_(desk) {}

  Unary* Enqueue(Context* context, const Bytes* request, Bytes* response) override {
    return ServeAppend(NewCall("Enqueue", context, request, response), *request, Name::Kind::kQueue);
  }
  Unary* Publish(Context* context, const Bytes* request, Bytes* response) override {
    return ServeAppend(NewCall("Publish", context, request, response), *request, Name::Kind::kTopic);
  }
  Unary* Dequeue(Context* context, const Bytes* request, Bytes* response) override {
    return ServeDequeue(NewCall("Dequeue", context, request, response, UnaryCall::IfCallerGoes::kGiveUp), *request);
  }
  Unary* Ack(Context* context, const Bytes* request, Bytes* response) override {
    return ServeAck(NewCall("Ack", context, request, response), *request);
  }
  Unary* Nack(Context* context, const Bytes* request, Bytes* response) override {
    return ServeNack(NewCall("Nack", context, request, response), *request);
  }
  Unary* Extend(Context* context, const Bytes* request, Bytes* response) override {
    return ServeExtend(NewCall("Extend", context, request, response), *request);
  }
  Bidi* EnqueueStream(Context* context) override { return MakeAppendStream(desk_, *context, Name::Kind::kQueue); }
  Bidi* PublishStream(Context* context) override { return MakeAppendStream(desk_, *context, Name::Kind::kTopic); }
  Bidi* Consume(Context* context) override { return MakeConsumeStream(desk_, *context); }
  grpc::ServerWriteReactor<Bytes>* Subscribe(Context* context, const Bytes* request) override {
    return MakeSubscribeStream(desk_, *context, *request);
  }

 private:
  UnaryCall* NewCall(std::string_view method, Context* context, const Bytes* request, Bytes* response,
                     UnaryCall::IfCallerGoes if_caller_goes = UnaryCall::IfCallerGoes::kAnswerAnyway) {
    return new UnaryCall(desk_, {kMessageServiceName, method, *context, *request, *response}, if_caller_goes);
  }

  Desk& desk_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeMessageService(Desk& desk) { return std::make_unique<MessageService>(desk); }

}  // namespace postkeeper
