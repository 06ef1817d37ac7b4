// One unary call, from its bytes to its answer: what the handlers of all services are made of.
#ifndef POSTKEEPER_SERVICE_UNARY_CALL_H_
#define POSTKEEPER_SERVICE_UNARY_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/slice.h>

#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "service/broker.h"
#include "service/desk.h"
#include "service/log_handle.h"
#include "service/peers.h"
#include "service/wire_codec.h"
#include "zkstore/task.h"

namespace postkeeper {

// How it works. A handler makes a UnaryCall and one of the Serve... functions below reads and checks the request on
// gRPC's thread, enters the gate, and lets the work run on the engine's strand or on the environment's threads. The
// work ends with Answer or Fail, exactly one of them, once, and until then may hold a plain pointer.
//
// gRPC hands each event of a reactor of one's own to a thread of its executor, which costs as much as reading and
// answering the call. So a call uses gRPC's default reactor, which has no events, unless it must know that its caller
// has gone.
//
// Threads: Answer and Fail from any thread. `give_up` comes on gRPC's, at any time until the call is answered.
class UnaryCall {
 public:
  enum class IfCallerGoes { kAnswerAnyway, kGiveUp };

  // What gRPC gives to a handler. `service` and `method` are literals.
  struct Origin {
    std::string_view service;
    std::string_view method;
    grpc::CallbackServerContext& context;
    const grpc::ByteBuffer& request;
    grpc::ByteBuffer& response;
  };

  UnaryCall(Desk& desk, const Origin& origin, IfCallerGoes if_caller_goes = IfCallerGoes::kAnswerAnyway);

  Desk& desk() const { return desk_; }
  grpc::CallbackServerContext& context() const { return origin_.context; }
  const grpc::ByteBuffer& request() const { return origin_.request; }
  // What the handler returns to gRPC. To be asked for before the call can be answered.
  grpc::ServerUnaryReactor* reactor() const { return reactor_; }

  // Decides what OUTCOME_UNKNOWN is called. True unless it is said otherwise; before Answer and Fail.
  void SetSafeToRepeat(bool is_safe) { is_safe_to_repeat_ = is_safe; }
  // For IfCallerGoes::kGiveUp: `give_up` is called, at most once, when the caller has gone; at once if it has gone
  // already. Call it at most once.
  void OnCancelDo(std::function<void()> give_up);

  // False: refused, and the call is answered. To be called once, after the checks of the request, which come first in
  // the order of errors. Then `broker` is set.
  bool Enter();
  Broker& broker() const { return *broker_; }

  // Each destroys this object.
  void Answer(grpc::Slice bytes);
  void Fail(const absl::Status& error);
  // With a status that is not of postkeeper's API.
  void FailPlainly(grpc::Status status);

  // If another replica works for the log, that one answers, and true is returned. Runs on the log's strand.
  Task<bool> RelayIfElsewhere(LogHandle log);

 private:
  class CancelWatch;
  class Link;
  ~UnaryCall() = default;
  Task<RelayedAnswer> AskPeer(std::shared_ptr<grpc::Channel> channel);
  void AnswerRelayed(RelayedAnswer answer);
  void End(grpc::Status status);

  Desk& desk_;
  const Origin origin_;
  MethodMetrics& metrics_;
  CancelWatch* const cancel_watch_;  // null: kAnswerAnyway
  grpc::ServerUnaryReactor* const reactor_;
  const Instant started_at_;
  Broker* broker_ = nullptr;
  bool is_safe_to_repeat_ = true;
  bool is_inside_ = false;  // has entered the gate
};

inline grpc::Slice ToAnswer(grpc::Slice answer) { return answer; }
inline grpc::Slice ToAnswer(const google::protobuf::MessageLite& message) { return EncodeMessage(message); }

// Ends `call` with what `work` returns: a grpc::Slice or a protobuf message.
template <typename Answer>
Task<void> AnswerWith(UnaryCall* call, Task<absl::StatusOr<Answer>> work) {
  absl::StatusOr<Answer> answer = co_await std::move(work);
  if (answer.ok()) {
    call->Answer(ToAnswer(*std::move(answer)));
  } else {
    call->Fail(answer.status());
  }
}

// The request read, checked with `check` and admitted; nullopt: the call is answered already.
template <typename Request, typename Check>
auto ReadRequest(UnaryCall* call, const grpc::ByteBuffer& bytes, const Check& check)
    -> std::optional<std::remove_cvref_t<decltype(*check(std::declval<Request>()))>> {
  Request request;
  if (absl::Status status = DecodeRequest(bytes, request.GetDescriptor()->name(), request); !status.ok()) {
    call->Fail(status);
    return std::nullopt;
  }
  auto checked = check(std::move(request));
  if (!checked.ok()) {
    call->Fail(checked.status());
    return std::nullopt;
  }
  if (!call->Enter()) return std::nullopt;
  return *std::move(checked);
}

// `work` is Task<absl::StatusOr<...>>(Broker&, checked) and runs on the environment's threads.
template <typename Request, typename Check, typename Work>
grpc::ServerUnaryReactor* ServeWithBroker(UnaryCall* call, const grpc::ByteBuffer& bytes, const Check& check,
                                          const Work& work) {
  grpc::ServerUnaryReactor* reactor = call->reactor();
  if (auto checked = ReadRequest<Request>(call, bytes, check)) {
    Spawn(call->desk().environment.executor(), AnswerWith(call, work(call->broker(), *std::move(checked))));
  }
  return reactor;
}

// Whether a call creates a missing queue, where that is allowed.
enum class IfMissing { kFail, kCreate };

// The same, on the strand of a queue, if this replica works for it; else the one that does answers.
template <typename Checked, typename Work>
Task<void> AnswerOrRelay(UnaryCall* call, std::shared_ptr<QueueEngine> queue, Checked checked, Work work) {
  if (!queue->is_serving()) {
    LogHandle handle(queue);
    const bool is_answered = co_await call->RelayIfElsewhere(std::move(handle));
    if (is_answered) co_return;
  }
  auto answer = co_await work(std::move(queue), std::move(checked));
  if (answer.ok()) {
    call->Answer(ToAnswer(*std::move(answer)));
  } else {
    call->Fail(answer.status());
  }
}

// Runs `work`, Task<absl::StatusOr<...>>(std::shared_ptr<QueueEngine>, checked), on the strand of the queue `name`.
template <typename Checked, typename Work>
void RunOnQueue(UnaryCall* call, const Name& name, IfMissing if_missing, Checked checked, Work work) {
  if (name.kind == Name::Kind::kQueue) {
    if (std::shared_ptr<QueueEngine> queue = call->broker().FindQueue(name)) {
      const asio::any_io_executor strand = queue->strand();
      return Spawn(strand, AnswerOrRelay(call, std::move(queue), std::move(checked), work));
    }
  }
  const bool creates = if_missing == IfMissing::kCreate && name.kind == Name::Kind::kQueue;
  auto open = creates ? call->broker().OpenQueue(name) : OpenExistingQueue(call->broker(), name);
  auto then = [](UnaryCall* opened_for, Task<absl::StatusOr<std::shared_ptr<QueueEngine>>> opening, Checked request,
                 Work run) -> Task<void> {
    absl::StatusOr<std::shared_ptr<QueueEngine>> queue = co_await std::move(opening);
    if (!queue.ok()) {
      opened_for->Fail(queue.status());
      co_return;
    }
    const asio::any_io_executor strand = (*queue)->strand();
    Spawn(strand, AnswerOrRelay(opened_for, *std::move(queue), std::move(request), run));
  };
  Spawn(call->desk().environment.executor(), then(call, std::move(open), std::move(checked), std::move(work)));
}

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_UNARY_CALL_H_
