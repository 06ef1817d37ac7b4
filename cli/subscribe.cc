#include "cli/subscribe.h"

#include <chrono>
#include <optional>

#include "cli/connection.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/protos.h"
#include "cli/retry.h"
#include "cli/stop.h"
#include "cli/text.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace postkeeper::cli {
namespace {

constexpr std::size_t kPositionBytes = 26;

// The service says every 5 s that it lives; three times nothing, and the stream is given up.
constexpr auto kHeartbeatInterval = std::chrono::seconds(5);
constexpr auto kSilenceMax = 3 * kHeartbeatInterval;

void SetStart(v1::Start& start, const std::string& from) {
  if (from == "latest") {
    start.set_latest(true);
  } else if (from == "earliest") {
    start.set_earliest(true);
  } else if (const auto ago = ParseDuration(from); ago.ok()) {
    *start.mutable_time() = ToProto(std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now()) - *ago);
  } else if (const auto time = ParseTime(from); time.ok()) {
    *start.mutable_time() = ToProto(*time);
  } else {
    start.set_after(from);
  }
}

class Subscriber {
 public:
  Subscriber(const SubscribeOptions& options, CommandContext& context)
      : options_(options), context_(context), stub_(context.connection.channel()) {
    request_.set_topic(options.topic);
    request_.set_subscriber("postkeeper subscribe");
    *request_.mutable_heartbeat_interval() = ToProto(kHeartbeatInterval);
    SetStart(*request_.mutable_start(), options.from);
  }

  ExitCode Run() {
    if (!context_.connection.WaitUntilConnected(context_.connection.options().connect_timeout)) {
      const Failure failure = context_.connection.Unreachable();
      return context_.Fail(failure.exit_code, failure.text);
    }
    Retry retry;
    while (!context_.stop.is_requested()) {
      const grpc::Status status = ReadStream(retry);
      if (result_.has_value()) return *result_;
      if (context_.stop.is_requested()) break;
      const Failure failure = context_.connection.Explain(status, Cat("subscribe to ", options_.topic));
      if (!status.ok() && !IsTransient(status)) return context_.Fail(failure.exit_code, failure.text);
      if (retry.is_first()) {
        context_.Note(Cat("the stream broke; trying again", status.ok() ? "" : ". ", failure.text));
      }
      retry.Wait([this] { return context_.stop.is_requested(); });
    }
    return ExitCode::kDone;
  }

 private:
  // One stream, from its opening to its end. Sets result_ if there is nothing more to do.
  grpc::Status ReadStream(Retry& retry) {
    grpc::ClientContext call;
    call.set_wait_for_ready(false);  // The waiting is ours, so that it can be ended.
    Watchdog watchdog(kSilenceMax, [&call] { call.TryCancel(); });
    context_.stop.OnRequest([&call] { call.TryCancel(); });
    const auto stream = stub_.Subscribe(&call, request_);
    v1::SubscribeResponse response;
    while (stream->Read(&response)) {
      watchdog.Feed();
      retry.Reset();
      result_ = Print(response);
      if (result_.has_value()) {
        call.TryCancel();
        break;
      }
    }
    const grpc::Status status = stream->Finish();
    context_.stop.OnRequest(nullptr);
    return status;
  }

  std::optional<ExitCode> Print(const v1::SubscribeResponse& response) {
    for (const v1::TopicMessage& message : response.messages()) {
      if (context_.out.is_json()) {
        context_.out.Json(TopicMessageJson(message));
      } else {
        context_.out.Body(message.message().body());
      }
      if (++printed_count_ == options_.count) break;
      request_.mutable_start()->set_after(message.position());
    }
    if (!response.messages().empty() && !context_.out.Flush()) {
      return context_.Fail(ExitCode::kFailed, "cannot write to standard output");
    }
    if (options_.count > 0 && printed_count_ == options_.count) return ExitCode::kDone;
    if (!response.position().empty()) request_.mutable_start()->set_after(response.position());
    if (options_.stops_when_caught_up && response.position() == response.tail()) return ExitCode::kDone;
    return std::nullopt;
  }

  const SubscribeOptions& options_;
  CommandContext& context_;
  v1::MessageService::Stub stub_;
  v1::SubscribeRequest request_;
  std::int64_t printed_count_ = 0;
  std::optional<ExitCode> result_;
};

}  // namespace

std::string CheckFrom(const std::string& from) {
  const bool is_right = from == "latest" || from == "earliest" || ParseDuration(from).ok() || ParseTime(from).ok() ||
                        from.size() == kPositionBytes;
  if (is_right) return "";
  return Cat("'", ForTerminal(from, false),
             "' is no place in a topic. Right would be latest, earliest, a position of 26 characters, "
             "a time like 2030-01-31T12:00:00Z, or 10m for ten minutes ago");
}

ExitCode Subscribe(const SubscribeOptions& options, CommandContext& context) {
  return Subscriber(options, context).Run();
}

}  // namespace postkeeper::cli
