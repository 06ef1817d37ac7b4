#include "service/call_gate.h"

#include <utility>

#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::string_view kMoving = "this connection has served for long; a new one may reach another replica";
constexpr std::string_view kStopping = "this replica is shutting down";

using Streams = std::vector<std::shared_ptr<OpenStream>>;

void Keep(const std::weak_ptr<OpenStream>& stream, Streams& streams) {
  if (std::shared_ptr<OpenStream> kept = stream.lock()) streams.push_back(std::move(kept));
}

}  // namespace

absl::Status ReplicaDraining() { return MakeError(Reason::kReplicaDraining, kStopping); }

absl::Status CallGate::EnterCall() {
  const std::int64_t calls = ++calls_;
  absl::Status refusal;
  if (is_draining_) {
    refusal = ReplicaDraining();
  } else if (calls > options_.calls_max) {
    refusal = MakeError(Reason::kTooManyCalls,
                        Cat("this replica has ", calls, " calls in progress; at most ", options_.calls_max,
                            " are allowed (--calls-max)"),
                        {.limit = options_.calls_max, .actual = calls});
  }
  if (!refusal.ok()) --calls_;
  return refusal;
}

absl::Status CallGate::EnterStream(const std::shared_ptr<OpenStream>& stream) {
  const auto jitter = static_cast<std::int64_t>(environment_.Random64() % 201) - 100;  // thousandths
  const Duration age = options_.stream_age_max + options_.stream_age_max / 1000 * jitter;
  absl::MutexLock lock(&mutex_);
  if (is_draining_) return ReplicaDraining();
  const auto streams = static_cast<std::int64_t>(streams_.size());
  if (streams >= options_.streams_max) {
    return MakeError(Reason::kTooManyStreams,
                     Cat("this replica has ", streams, " streams open; at most ", options_.streams_max,
                         " are allowed (--streams-max)"),
                     {.limit = options_.streams_max, .actual = streams + 1});
  }
  streams_.emplace(stream.get(), Entry{.stream = stream, .ask_at = environment_.Now() + age});
  return absl::OkStatus();
}

void CallGate::LeaveStream(const OpenStream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
}

void CallGate::Tick() {
  const Instant now = environment_.Now();
  Streams asked, ended, broken;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [key, entry] : streams_) {
      if (now >= entry.break_at) {
        Keep(entry.stream, broken);
      } else if (now >= entry.end_at && entry.break_at == Instant::max()) {
        entry.break_at = now + kBreakAfter;
        Keep(entry.stream, ended);
      } else if (now >= entry.ask_at && entry.end_at == Instant::max()) {
        entry.end_at = now + options_.stream_grace;
        Keep(entry.stream, asked);
      }
    }
  }
  for (const auto& stream : asked) stream->AskToLeave(kMoving, options_.stream_grace);
  for (const auto& stream : ended) stream->EndNow(MakeError(Reason::kReplicaDraining, kMoving));
  for (const auto& stream : broken) stream->Break();
}

void CallGate::Drain(Duration grace) {
  Streams asked;
  {
    absl::MutexLock lock(&mutex_);
    is_draining_ = true;
    for (auto& [key, entry] : streams_) {
      entry.end_at = environment_.Now() + grace;
      Keep(entry.stream, asked);
    }
  }
  for (const auto& stream : asked) stream->AskToLeave(kStopping, grace);
}

void CallGate::EndStreams() {
  Streams ended;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [key, entry] : streams_) Keep(entry.stream, ended);
  }
  for (const auto& stream : ended) stream->EndNow(ReplicaDraining());
}

bool CallGate::IsEmpty() const {
  absl::MutexLock lock(&mutex_);
  return calls_ == 0 && streams_.empty();
}

}  // namespace postkeeper
