// The clients that consume queues.
#include <algorithm>
#include <utility>

#include "tests/support/simulation/clients.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Answer = History::Settle::Answer;

}  // namespace

Answer Clients::AnswerOf(const std::vector<SettleFailure>& failures) {
  if (failures.empty()) return Answer::kOk;
  switch (failures.front().error) {
    case SettleError::kAlreadySettled:
      return Answer::kAlreadySettled;
    case SettleError::kStaleLease:
      return Answer::kStale;
    default:
      return Answer::kOther;
  }
}

// ---- With Dequeue

Task<void> Clients::Poll() {
  while (!is_over_) {
    co_await Pause();
    if (!is_calm_ && !TakeOperation()) {
      co_await WaitFor(milliseconds(200));
      continue;
    }
    const auto queue = static_cast<int>(random_.Below(static_cast<std::uint64_t>(options_.queues)));
    co_await Dequeue(QueueName(queue));
  }
}

Task<void> Clients::Dequeue(Name name) {
  CheckedDequeue request;
  request.messages_max = static_cast<int>(1 + random_.Below(5));
  request.bytes_max = 1 << 20;
  request.wait = random_.Between(milliseconds(0), milliseconds(2000));
  const auto handle = std::make_shared<QueueEngine::CallHandle>();
  const Moment asked = cluster_.Now();
  Cluster::Work<QueueEngine, DequeueAnswer> work = [this, request, handle, asked](std::shared_ptr<QueueEngine> engine,
                                                                                  ProcessPtr process) {
    return ServeDequeue(std::move(engine), std::move(process), request, handle, asked);
  };
  // Now and then its caller has less patience than it says.
  const Duration deadline = random_.Chance(0.1) ? request.wait / 2 : Cluster::kCallDeadline;
  std::function<void()> give_up = [handle] { handle->Cancel(); };
  const std::optional<DequeueAnswer> answer = co_await cluster_.Call<QueueEngine, DequeueAnswer>(
      PickSlot(), name, std::move(work), deadline, std::move(give_up));
  if (!answer || !answer->ok()) co_return;
  for (std::size_t delivery : **answer) Act(WorkOn(name, delivery, nullptr));
}

Task<Clients::DequeueAnswer> Clients::ServeDequeue(std::shared_ptr<QueueEngine> engine, ProcessPtr process,
                                                   CheckedDequeue request,
                                                   std::shared_ptr<QueueEngine::CallHandle> handle, Moment asked) {
  const absl::StatusOr<QueueEngine::Dequeued> outcome = co_await engine->Dequeue(std::move(request), handle);
  if (!outcome.ok()) co_return outcome.status();
  Given given;
  if (process->is_dead) co_return given;
  for (const Delivery& delivery : outcome->deliveries) given.push_back(Record(*process, *engine, delivery, 0, asked));
  co_return given;
}

std::size_t Clients::Record(const Process& process, const QueueEngine& engine, const Delivery& delivery, int stream,
                            Moment asked) {
  History::Delivery record;
  record.text = delivery.message();
  record.message_id = delivery.message_id();
  record.token = delivery.token;
  record.attempt = delivery.attempt;
  record.stream = stream;
  record.asked = asked;
  record.given = cluster_.Now();
  record.zookeeper_silence = record.given.at - process.replica->client().last_answered_sent_at();
  cluster_.Trace(Cat("replica ", process.slot, " delivers ", record.text, " of ", engine.entry().name.id, " at ",
                     record.token.position.DebugString(), " epoch ", record.token.epoch, " number ",
                     record.token.number, stream == 0 ? std::string() : Cat(" to stream ", stream)));
  history_.deliveries.push_back(std::move(record));
  return history_.deliveries.size() - 1;
}

// ---- What they do with a message

Task<void> Clients::WorkOn(Name name, std::size_t delivery, StreamPtr stream) {
  if (is_over_) co_return;
  if (!is_calm_) TakeOperation();
  const std::uint64_t dice = is_calm_ ? 0 : random_.Below(100);
  if (dice >= 92) co_return;  // it is dead
  if (dice >= 85) co_await WaitFor(random_.Between(seconds(0), seconds(20)));
  if (dice < 65 || dice >= 85) {
    co_await Settle(name, delivery, std::nullopt, stream);
    co_return;
  }
  CheckedNacks nacks{.lease_tokens = {EncodeLeaseToken(history_.deliveries[delivery].token)}};
  nacks.kind = dice < 72 ? NackKind::kRelease : NackKind::kRetry;
  if (dice >= 76) nacks.delay = milliseconds(random_.Below(dice >= 82 ? 20'000 : 1'000));
  co_await Settle(name, delivery, std::move(nacks), stream);
}

// An Ack is repeated until it is answered: on the stream, while that is open, or by calls.
Task<void> Clients::Settle(Name name, std::size_t delivery, std::optional<CheckedNacks> nacks, StreamPtr stream) {
  while (!is_over_) {
    auto record = std::make_shared<History::Settle>();
    record->token = history_.deliveries[delivery].token;
    record->text = history_.deliveries[delivery].text;
    record->is_ack = !nacks;
    record->sent = cluster_.Now();
    history_.settles.push_back(record);
    if (!history_.deliveries[delivery].given_back) history_.deliveries[delivery].given_back = record->sent;
    SettleOrders orders;
    if (nacks) {
      orders.nacks.push_back(*nacks);
    } else {
      orders.ack_tokens.push_back(EncodeLeaseToken(record->token));
    }
    if (stream && random_.Chance(0.7)) {
      const bool is_heard = co_await SettleOnStream(stream, record, orders);
      if (is_heard || nacks) co_return;
      continue;
    }
    Cluster::Work<QueueEngine, SettleAnswer> work = [this, orders, record](std::shared_ptr<QueueEngine> engine,
                                                                           ProcessPtr process) {
      return ServeSettle(std::move(engine), std::move(process), orders, record);
    };
    const std::optional<SettleAnswer> answer = co_await cluster_.Call<QueueEngine, SettleAnswer>(
        PickSlot(), name, std::move(work), Cluster::kCallDeadline, nullptr);
    const bool is_answered = answer && (answer->ok() || absl::IsNotFound(answer->status()));
    if (is_answered || nacks) co_return;
    co_await WaitFor(random_.Between(milliseconds(10), milliseconds(500)));
  }
}

Task<Clients::SettleAnswer> Clients::ServeSettle(std::shared_ptr<QueueEngine> engine, ProcessPtr process,
                                                 SettleOrders orders, std::shared_ptr<History::Settle> record) {
  SettleAnswer outcome = co_await engine->Settle(std::move(orders));
  if (process->is_dead) co_return outcome;
  cluster_.Trace(Cat("replica ", process->slot, " answers the ", record->is_ack ? "ack of " : "nack of ", record->text,
                     " epoch ", record->token.epoch, " number ", record->token.number, ": ",
                     !outcome.ok()      ? std::string(outcome.status().message())
                     : outcome->empty() ? std::string("OK")
                                        : outcome->front().detail));
  record->answered = cluster_.Now();
  record->epoch = static_cast<std::uint64_t>(engine->epoch());
  record->answer = outcome.ok() ? AnswerOf(*outcome) : Answer::kNone;
  if (outcome.ok() && !outcome->empty()) record->detail = outcome->front().detail;
  co_return outcome;
}

}  // namespace postkeeper
