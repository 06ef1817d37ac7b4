#include "cli/dequeue.h"

#include <algorithm>
#include <functional>
#include <map>

#include "cli/connection.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/protos.h"
#include "cli/text.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace postkeeper::cli {
namespace {

using Failures = google::protobuf::RepeatedPtrField<v1::SettleFailure>;
using TokenRange = std::vector<std::string>;

// What the service takes in one call.
constexpr std::size_t kTokensPerCallMax = 1000;

absl::StatusOr<TokenRange> ReadTokens(const SettleOptions& options, CommandContext& context) {
  if (options.tokens != TokenRange{"-"}) return options.tokens;
  TokenRange tokens;
  LineReader reader(context.stdin_fd, "standard input");
  std::string line;
  for (;;) {
    const absl::StatusOr<bool> has_line = reader.Next(line);
    if (!has_line.ok()) return has_line.status();
    if (!*has_line) return tokens;
    if (!line.empty()) tokens.push_back(line);
  }
}

// One result per token, in the order given. A token settled before is no failure for an Ack: it is what was wanted.
ExitCode ShowSettled(const TokenRange& tokens, const Failures& failures, std::string_view done,
                     bool takes_already_settled, CommandContext& context) {
  std::map<std::string_view, const v1::SettleFailure*> by_token;
  for (const v1::SettleFailure& failure : failures) by_token[failure.lease_token()] = &failure;
  ExitCode exit_code = ExitCode::kDone;
  for (const std::string& token : tokens) {
    const auto found = by_token.find(token);
    const bool has_failed = found != by_token.end();
    if (context.out.is_json()) {
      JsonObject object;
      object.Add("lease_token", token).Add("result", has_failed ? SettleErrorName(found->second->error()) : done);
      if (has_failed && !found->second->detail().empty()) object.Add("detail", found->second->detail());
      context.out.Json(object);
    }
    if (!has_failed) continue;
    const bool is_harmless = takes_already_settled && found->second->error() == v1::SETTLE_ERROR_ALREADY_SETTLED;
    const std::string text = Cat(token, " not ", done, ": ", SettleErrorText(*found->second));
    if (is_harmless) {
      context.Note(text);
    } else {
      exit_code = context.Fail(ExitCode::kFailed, text);
    }
  }
  return exit_code;
}

// Settles in calls of at most 1,000 tokens. `call` fills in and sends one of them.
ExitCode Settle(const SettleOptions& options, std::string_view verb, std::string_view done, bool takes_already_settled,
                CommandContext& context,
                const std::function<grpc::Status(v1::MessageService::Stub&, grpc::ClientContext*, const TokenRange&,
                                                 Failures&)>& call) {
  const absl::StatusOr<TokenRange> tokens = ReadTokens(options, context);
  if (!tokens.ok()) return context.Fail(ExitCode::kFailed, std::string(tokens.status().message()));
  if (tokens->empty()) return context.Fail(ExitCode::kUsage, Cat(verb, ": no lease token was given"));
  v1::MessageService::Stub stub(context.connection.channel());
  std::size_t failed_count = 0;
  ExitCode exit_code = ExitCode::kDone;
  for (std::size_t first = 0; first < tokens->size(); first += kTokensPerCallMax) {
    const std::size_t end = std::min(tokens->size(), first + kTokensPerCallMax);
    const TokenRange range(tokens->begin() + first, tokens->begin() + end);
    Failures failures;
    const grpc::Status status =
        context.connection.Call([&](grpc::ClientContext* rpc) { return call(stub, rpc, range, failures); });
    if (!status.ok()) {
      const Failure failure = context.connection.Explain(status, Cat(verb, " on ", options.source));
      return context.Fail(failure.exit_code, failure.text);
    }
    failed_count += failures.size();
    const ExitCode shown = ShowSettled(range, failures, done, takes_already_settled, context);
    if (shown != ExitCode::kDone) exit_code = shown;
  }
  if (!context.out.is_json() && !context.is_quiet) {
    context.out.Line(Cat(tokens->size() - std::min(failed_count, tokens->size()), " ", done));
  }
  return exit_code;
}

ExitCode PrintDeliveries(const v1::DequeueResponse& response, CommandContext& context) {
  for (const v1::Delivery& delivery : response.deliveries()) {
    if (context.out.is_json()) {
      JsonObject object = DeliveryJson(delivery);
      object.Add("lease_duration", FormatDuration(FromProto(response.lease_duration())));
      context.out.Json(object);
    } else {
      context.out.Body(delivery.message().body());
    }
  }
  if (context.out.Flush()) return ExitCode::kDone;
  return context.Fail(ExitCode::kFailed, "cannot write to standard output; nothing was acked");
}

}  // namespace

ExitCode Dequeue(const DequeueOptions& options, CommandContext& context) {
  v1::MessageService::Stub stub(context.connection.channel());
  v1::DequeueRequest request;
  v1::DequeueResponse response;
  request.set_source(options.source);
  request.set_max_messages(options.max_messages);
  *request.mutable_wait() = ToProto(options.wait);
  if (options.lease_duration.has_value()) *request.mutable_lease_duration() = ToProto(*options.lease_duration);
  request.set_consumer("postkeeper dequeue");
  const grpc::Status status = context.connection.Call(
      [&](grpc::ClientContext* call) { return stub.Dequeue(call, request, &response); }, options.wait);
  if (!status.ok()) {
    const Failure failure = context.connection.Explain(status, Cat("dequeue from ", options.source));
    return context.Fail(failure.exit_code, failure.text);
  }
  if (response.deliveries().empty()) return ExitCode::kNothingThere;
  const ExitCode printed = PrintDeliveries(response, context);
  if (printed != ExitCode::kDone || !options.acks) return printed;

  v1::AckRequest ack;
  v1::AckResponse acked;
  ack.set_source(options.source);
  for (const v1::Delivery& delivery : response.deliveries()) ack.add_lease_tokens(delivery.lease_token());
  const grpc::Status ack_status =
      context.connection.Call([&](grpc::ClientContext* call) { return stub.Ack(call, ack, &acked); });
  if (!ack_status.ok()) {
    const Failure failure = context.connection.Explain(
        ack_status, Cat("ack of what was printed from ", options.source, " (it may come again)"));
    return context.Fail(failure.exit_code, failure.text);
  }
  ExitCode exit_code = ExitCode::kDone;
  for (const v1::SettleFailure& failure : acked.failures()) {
    if (failure.error() == v1::SETTLE_ERROR_ALREADY_SETTLED) continue;
    exit_code = context.Fail(ExitCode::kFailed, Cat(failure.lease_token(), " not acked: ", SettleErrorText(failure)));
  }
  return exit_code;
}

ExitCode Ack(const SettleOptions& options, CommandContext& context) {
  return Settle(
      options, "ack", "acked", true, context,
      [&](v1::MessageService::Stub& stub, grpc::ClientContext* rpc, const TokenRange& tokens, Failures& failures) {
        v1::AckRequest request;
        v1::AckResponse response;
        request.set_source(options.source);
        request.mutable_lease_tokens()->Assign(tokens.begin(), tokens.end());
        const grpc::Status status = stub.Ack(rpc, request, &response);
        failures.Swap(response.mutable_failures());
        return status;
      });
}

ExitCode Nack(const NackOptions& options, CommandContext& context) {
  return Settle(
      options.settle, "nack", "nacked", false, context,
      [&](v1::MessageService::Stub& stub, grpc::ClientContext* rpc, const TokenRange& tokens, Failures& failures) {
        v1::NackRequest request;
        v1::NackResponse response;
        request.set_source(options.settle.source);
        v1::Nacks& nacks = *request.mutable_nacks();
        nacks.mutable_lease_tokens()->Assign(tokens.begin(), tokens.end());
        nacks.set_kind(options.releases  ? v1::NACK_KIND_RELEASE
                       : options.rejects ? v1::NACK_KIND_REJECT
                                         : v1::NACK_KIND_RETRY);
        nacks.set_reason(options.reason);
        if (options.delay.has_value()) *nacks.mutable_delay() = ToProto(*options.delay);
        const grpc::Status status = stub.Nack(rpc, request, &response);
        failures.Swap(response.mutable_failures());
        return status;
      });
}

ExitCode Extend(const SettleOptions& options, std::optional<Duration> lease_duration, CommandContext& context) {
  return Settle(
      options, "extend", "extended", false, context,
      [&](v1::MessageService::Stub& stub, grpc::ClientContext* rpc, const TokenRange& tokens, Failures& failures) {
        v1::ExtendRequest request;
        v1::ExtendResponse response;
        request.set_source(options.source);
        v1::Extensions& extensions = *request.mutable_extensions();
        extensions.mutable_lease_tokens()->Assign(tokens.begin(), tokens.end());
        if (lease_duration.has_value()) *extensions.mutable_lease_duration() = ToProto(*lease_duration);
        const grpc::Status status = stub.Extend(rpc, request, &response);
        failures.Swap(response.mutable_failures());
        return status;
      });
}

}  // namespace postkeeper::cli
