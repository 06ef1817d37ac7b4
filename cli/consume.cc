#include "cli/consume.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cli/child.h"
#include "cli/connection.h"
#include "cli/consume_link.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/protos.h"
#include "cli/retry.h"
#include "cli/stop.h"
#include "cli/text.h"
#include "postkeeper/v1/admin.grpc.pb.h"

namespace postkeeper::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPrefetchForPrinting = 100;
constexpr std::size_t kOutputBytesMax = 512 << 10;
constexpr std::size_t kReasonBytesMax = 1000;
// How long the output of a command is kept for a server that cannot take it.
constexpr auto kPublishPatience = std::chrono::seconds(60);
constexpr auto kTick = std::chrono::milliseconds(20);
constexpr auto kEmptyCheckInterval = std::chrono::milliseconds(500);

ConsumeLinkOptions LinkOptions(const ConsumeOptions& options) {
  ConsumeLinkOptions link;
  link.source = options.source;
  link.lease_duration = options.lease_duration;
  const bool runs_commands = !options.command.empty();
  const int working = runs_commands ? options.parallel : 0;
  std::int64_t credit = working + options.prefetch.value_or(runs_commands ? options.parallel : kPrefetchForPrinting);
  if (options.count > 0) credit = std::min(credit, options.count);
  link.credit = static_cast<int>(std::max<std::int64_t>(credit, 1));
  return link;
}

// Prints messages, or runs commands on them: `parallel` worker threads, each with one command at a time. A supervisor
// thread watches for the reasons to stop.
class Consumer : public ConsumeListener {
 public:
  Consumer(const ConsumeOptions& options, CommandContext& context)
      : options_(options),
        context_(context),
        messages_(context.connection.channel()),
        admin_(context.connection.channel()),
        link_(context.connection, LinkOptions(options), *this) {}

  ExitCode Run() {
    std::vector<std::thread> threads;
    if (!options_.command.empty()) {
      for (int i = 0; i < options_.parallel; ++i) threads.emplace_back([this] { Work(); });
    }
    threads.emplace_back([this] { Supervise(); });
    const Failure failure = link_.Run();
    {
      const std::lock_guard lock(mu_);
      is_over_ = true;
      queue_.clear();
    }
    changed_.notify_all();
    for (std::thread& thread : threads) thread.join();
    if (!options_.command.empty()) {
      context_.Note(Cat("acked ", acked_count_, ", nacked ", nacked_count_,
                        failed_count_ == 0 ? "" : Cat(", not settled ", failed_count_)));
    }
    if (failure.exit_code != ExitCode::kDone) return context_.Fail(failure.exit_code, failure.text);
    return exit_code_;
  }

  void OnDeliveries(std::vector<v1::Delivery> deliveries) override {
    std::vector<std::string> surplus;
    bool is_count_taken = false;
    {
      const std::lock_guard lock(mu_);
      last_activity_ = Clock::now();
      // Only a stop request empties the queue for good; drained by --count, it still has work.
      while (!deliveries.empty() && (is_stopping_ || link_.is_draining() || IsCountReached(deliveries.size()))) {
        surplus.push_back(deliveries.back().lease_token());
        deliveries.pop_back();
      }
      taken_count_ += static_cast<std::int64_t>(deliveries.size());
      is_count_taken = options_.count > 0 && taken_count_ == options_.count;
      if (!options_.command.empty()) {
        for (v1::Delivery& delivery : deliveries) queue_.push_back(std::move(delivery));
      }
    }
    changed_.notify_all();
    link_.Nack(surplus, v1::NACK_KIND_RELEASE, "");
    if (options_.command.empty()) PrintAndAck(deliveries);
    if (is_count_taken) link_.Drain();
  }

  void OnInterruption() override {
    if (!link_.is_draining()) ReleaseQueue();
  }

  void OnSettled(const SettledMessage& message) override {
    const std::lock_guard lock(mu_);
    last_activity_ = Clock::now();
    if (!message.failure.empty()) {
      ++failed_count_;
      NoteLocked(
          Cat("message ", message.message_id, " was not settled: ", message.failure, "; it may be worked on twice"));
    } else if (message.result == "acked") {
      ++acked_count_;
    } else if (message.result == "nacked") {
      ++nacked_count_;
    }
    if (!options_.command.empty() && context_.out.is_json()) {
      context_.out.Json(JsonObject().Add("message_id", message.message_id).Add("result", message.result));
      context_.out.Flush();
    }
  }

  void OnNote(const std::string& text) override {
    const std::lock_guard lock(mu_);
    NoteLocked(text);
  }

 private:
  // Both: with mu_ held.
  bool IsCountReached(std::size_t more) const {
    return options_.count > 0 && taken_count_ + static_cast<std::int64_t>(more) > options_.count;
  }
  void NoteLocked(const std::string& text) { context_.Note(text); }

  void PrintAndAck(const std::vector<v1::Delivery>& deliveries) {
    std::vector<std::string> tokens;
    for (const v1::Delivery& delivery : deliveries) {
      tokens.push_back(delivery.lease_token());
      if (context_.out.is_json()) {
        context_.out.Json(DeliveryJson(delivery));
      } else {
        context_.out.Body(delivery.message().body());
      }
    }
    if (context_.out.Flush()) {
      link_.Ack(tokens);
      return;
    }
    // Nobody reads what was printed, so it must come again for somebody else.
    link_.Nack(tokens, v1::NACK_KIND_RELEASE, "");
    if (!link_.is_draining()) {
      exit_code_ =
          context_.Fail(ExitCode::kFailed, "cannot write to standard output; what was not printed is given back");
    }
    Stop();
  }

  void Stop() {
    {
      const std::lock_guard lock(mu_);
      is_stopping_ = true;
    }
    ReleaseQueue();
    link_.Drain();
  }

  void ReleaseQueue() {
    std::vector<std::string> tokens;
    {
      const std::lock_guard lock(mu_);
      for (const v1::Delivery& delivery : queue_) tokens.push_back(delivery.lease_token());
      queue_.clear();
      taken_count_ -= static_cast<std::int64_t>(tokens.size());
    }
    link_.Nack(tokens, v1::NACK_KIND_RELEASE, "");
  }

  void Work() {
    std::unique_lock lock(mu_);
    for (;;) {
      changed_.wait(lock, [this] { return is_over_ || !queue_.empty(); });
      if (is_over_) return;
      const v1::Delivery delivery = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      RunCommand(delivery);
      lock.lock();
      last_activity_ = Clock::now();
    }
  }

  void RunCommand(const v1::Delivery& delivery) {
    ChildCommand command;
    command.command = options_.command;
    command.input = delivery.message().body();
    command.captures_output = !options_.output_topic.empty();
    command.output_bytes_max = kOutputBytesMax;
    command.variables = {{"POSTKEEPER_ADDRESS", context_.connection.options().address},
                         {"POSTKEEPER_SOURCE", options_.source},
                         {"POSTKEEPER_MESSAGE_ID", delivery.message_id()},
                         {"POSTKEEPER_ATTEMPT", Cat(delivery.attempt())},
                         {"POSTKEEPER_CONTENT_TYPE", delivery.message().content_type()}};
    for (const auto& [name, value] : delivery.message().attributes()) {
      command.variables.emplace_back(AttributeVariable(name), value);
    }
    const ChildResult result = RunChild(command, context_.children);
    const std::string& token = delivery.lease_token();
    if (link_.IsLost(token)) {
      OnSettled({delivery.message_id(), "stale_lease", "its lease was lost while the command ran"});
      link_.Forget(token);
      return;
    }
    std::string failure = result.failure;
    if (failure.empty() && command.captures_output) failure = PublishOutput(delivery, result.output);
    if (failure.empty()) {
      link_.Ack({token});
      return;
    }
    OnNote(Cat("message ", delivery.message_id(), ", attempt ", delivery.attempt(), ": ", failure, "; giving it back"));
    link_.Nack({token}, v1::NACK_KIND_RETRY, failure.substr(0, kReasonBytesMax));
  }

  // Answers why it could not be published; empty if it was. The work is done, so a server that is away for a moment is
  // waited for: the request_id makes repeats harmless.
  std::string PublishOutput(const v1::Delivery& delivery, const std::string& output) {
    v1::PublishRequest request;
    request.set_topic(options_.output_topic);
    request.set_request_id(OutputRequestId(options_.source, delivery.message_id()));
    v1::Message& message = *request.add_messages();
    message.set_body(output);
    (*message.mutable_attributes())["source-message-id"] = delivery.message_id();
    const Clock::time_point give_up_at = Clock::now() + kPublishPatience;
    grpc::Status status;
    for (Retry retry;; retry.Wait([] { return false; })) {
      v1::PublishResponse response;
      status = context_.connection.Call(
          [&](grpc::ClientContext* call) { return messages_.Publish(call, request, &response); });
      const bool is_worth_repeating = IsTransient(status) && !link_.IsLost(delivery.lease_token());
      if (!is_worth_repeating || Clock::now() >= give_up_at) break;
    }
    return context_.connection.Explain(status, Cat("publish to ", options_.output_topic)).text;
  }

  void Supervise() {
    Clock::time_point checked_at = Clock::now();
    std::unique_lock lock(mu_);
    while (!is_over_) {
      changed_.wait_for(lock, kTick);
      const bool is_idle = link_.held_count() == 0 && queue_.empty();
      const auto idle_since = last_activity_;
      const bool has_been_stopped = is_stopping_;
      lock.unlock();
      if (!has_been_stopped && context_.stop.is_requested()) {
        Stop();
      } else if (is_idle && options_.idle_exit.has_value() && Clock::now() - idle_since >= *options_.idle_exit) {
        link_.Drain();
      } else if (is_idle && options_.ends_when_empty && Clock::now() - checked_at >= kEmptyCheckInterval) {
        if (IsSourceEmpty()) link_.Drain();
        checked_at = Clock::now();
      }
      lock.lock();
    }
  }

  // Nothing ready, nothing delayed, and nobody holds anything that could come back.
  bool IsSourceEmpty() {
    v1::GetStatsRequest request;
    v1::GetStatsResponse stats;
    request.set_source(options_.source);
    const grpc::Status status =
        context_.connection.Call([&](grpc::ClientContext* call) { return admin_.GetStats(call, request, &stats); });
    return status.ok() && stats.ready() == 0 && stats.delayed() == 0 && stats.leased() == 0;
  }

  const ConsumeOptions& options_;
  CommandContext& context_;
  v1::MessageService::Stub messages_;
  v1::AdminService::Stub admin_;

  // Taken before the link's own lock, never while that one is held.
  std::mutex mu_;
  std::condition_variable changed_;
  // All guarded by mu_; also what is printed, once there are workers.
  std::deque<v1::Delivery> queue_;
  bool is_stopping_ = false;
  bool is_over_ = false;
  std::int64_t taken_count_ = 0;
  std::int64_t acked_count_ = 0;
  std::int64_t nacked_count_ = 0;
  std::int64_t failed_count_ = 0;
  Clock::time_point last_activity_ = Clock::now();
  // Touched by the reading thread only.
  ExitCode exit_code_ = ExitCode::kDone;

  ConsumeLink link_;  // Last: it calls all of the above.
};

}  // namespace

ExitCode Consume(const ConsumeOptions& options, CommandContext& context) { return Consumer(options, context).Run(); }

}  // namespace postkeeper::cli
