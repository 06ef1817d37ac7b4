#include "tests/support/faults/topic_history.h"

#include <algorithm>
#include <utility>

#include "zkstore/batch.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using std::chrono::seconds;

constexpr std::int64_t kMessagesMax = 40;
constexpr Duration kRetention = seconds(20);
// How late a trim may be when all is well.
constexpr Duration kTrimSlack = seconds(15);

// What a subscriber may be told when a stream ends: it comes back.
bool IsPassing(const absl::Status& status) {
  return HasReason(status, Reason::kNoOwner) || HasReason(status, Reason::kZookeeperUnavailable) ||
         HasReason(status, Reason::kReplicaDraining);
}

Position At(Position batch, std::size_t index) {
  return Position::FromValue(batch.value() + static_cast<std::uint64_t>(index));
}

}  // namespace

TopicHistory::TopicHistory(std::uint64_t seed) : FaultWorld(seed) {
  if (seed % 4 < 2) {
    settings_.max_messages = kMessagesMax;
  } else {
    settings_.retention = std::chrono::duration_cast<decltype(settings_.retention)>(kRetention);
  }
  ensemble_.SetTreeObserver([this](const zk::TreeEvent& event) { Audit(event); });
  AddSubscriber("earliest", StartEarliest{});
  AddSubscriber("latest", StartLatest{});
}

TopicHistory::~TopicHistory() { ensemble_.SetTreeObserver(nullptr); }

// ---- The processes

void TopicHistory::OnBoot(int slot) {
  topics_[static_cast<std::size_t>(slot)] = slots_[static_cast<std::size_t>(slot)].replica->Topic("t", settings_);
  uid_ = topics_[static_cast<std::size_t>(slot)]->uid();
}

void TopicHistory::OnEnd(int slot) {
  for (const auto& subscriber : subscribers_) {
    if (subscriber->slot == slot) subscriber->is_running = false;
  }
  topics_[static_cast<std::size_t>(slot)].reset();
}

bool TopicHistory::IsServing(int slot) const {
  const auto& topic = topics_[static_cast<std::size_t>(slot)];
  return topic && topic->is_serving();
}

std::shared_ptr<Pending<AppendOutcome>> TopicHistory::StartAppend(int slot, CheckedAppend append) {
  return StartPublish(topics_[static_cast<std::size_t>(slot)], std::move(append));
}

// ---- Subscribers

void TopicHistory::AddSubscriber(std::string name, CheckedStart start) {
  auto subscriber = std::make_shared<Subscriber>();
  subscriber->name = std::move(name);
  subscriber->start = std::move(start);
  subscribers_.push_back(std::move(subscriber));
}

bool TopicHistory::IsOver(const Subscriber& subscriber, int slot, int run) const {
  return !subscriber.is_running || subscriber.run != run || !topics_[static_cast<std::size_t>(slot)];
}

void TopicHistory::Subscribe(const std::shared_ptr<Subscriber>& subscriber) {
  subscriber->slot = PickSlot();
  subscriber->is_running = true;
  if (!subscriber->position) subscriber->asked_at = environment_.Now();
  const std::shared_ptr<TopicEngine> topic = topics_[static_cast<std::size_t>(subscriber->slot)];
  Spawn(topic->strand(), Read(subscriber, topic, subscriber->slot, ++subscriber->run));
}

Task<void> TopicHistory::Read(std::shared_ptr<Subscriber> subscriber, std::shared_ptr<TopicEngine> topic, int slot,
                              int run) {
  CheckedStart start = subscriber->start;
  if (subscriber->position) start = *DecodePosition(EncodePosition(topic->uid(), *subscriber->position));
  StepOutcome step = co_await topic->BeginAt(std::move(start));
  while (!IsOver(*subscriber, slot, run)) {
    if (!step.ok()) {
      Fail(*subscriber, step.status());
      co_return;
    }
    if (!subscriber->began_at) Begin(*subscriber, *step);
    Receive(*subscriber, *step);
    const Position read_so_far = *subscriber->position;
    step = co_await topic->ReadAfter(read_so_far, seconds(1));
  }
}

void TopicHistory::Begin(Subscriber& subscriber, const TopicEngine::Step& step) {
  Trace(Cat(subscriber.name, " begins behind ", step.position.DebugString()));
  subscriber.began_at = environment_.Now();
  subscriber.first = step.position;
  subscriber.position = step.position;
}

void TopicHistory::Receive(Subscriber& subscriber, const TopicEngine::Step& step) {
  if (step.position < *subscriber.position) {
    return Violate(Cat("G9: ", subscriber.name, " is sent back from ", subscriber.position->DebugString(), " to ",
                       step.position.DebugString()));
  }
  if (step.batch) {
    Trace(Cat(subscriber.name, " at replica ", subscriber.slot, " gets ", step.batch_position.DebugString()));
    for (int i = static_cast<int>(step.first_index); i < step.batch->size(); ++i) {
      const Position at = At(step.batch_position, static_cast<std::size_t>(i));
      if (at <= *subscriber.position) Violate(Cat("G9: ", subscriber.name, " gets a message twice"));
      subscriber.got.emplace(at, step.batch->message(i));
    }
  }
  subscriber.position = step.position;
}

void TopicHistory::Fail(Subscriber& subscriber, const absl::Status& status) {
  Trace(Cat(subscriber.name, " is told ", std::string(status.message())));
  subscriber.is_running = false;
  if (IsPassing(status)) return;
  if (!HasReason(status, Reason::kPositionTrimmed) || !subscriber.position) {
    return Violate(Cat("G9: ", subscriber.name, " is told ", std::string(status.message())));
  }
  const std::optional<PositionText> text = DecodePosition(DetailsOf(status).oldest_position);
  if (!text) return Violate(Cat("G9: ", subscriber.name, " is told OUT_OF_RANGE without a position"));
  const absl::StatusOr<Position> oldest = PositionOf(*text, uid(), "t");
  if (!oldest.ok() || *oldest <= *subscriber.position) {
    return Violate(Cat("G9: ", subscriber.name, " is told OUT_OF_RANGE with a position that does not help"));
  }
  subscriber.told_trimmed.emplace_back(*subscriber.position, *oldest);
  subscriber.position = *oldest;
}

// ---- The auditor

void TopicHistory::Audit(const zk::TreeEvent& event) {
  if (!uid_) return;
  const std::string log = layout_.Segments(*uid_) + "/";
  if (!event.path.starts_with(log)) return;
  const std::size_t slash = event.path.find('/', log.size());
  if (slash == std::string::npos) return;
  const std::optional<std::uint64_t> segment = Layout::ParseSegment(event.path.substr(log.size(), slash - log.size()));
  const std::optional<std::uint32_t> number = Layout::ParseBatch(event.path);
  if (!segment || !number) return;
  const Position at(*segment, *number, 0);
  if (event.type == zk::WatchType::kCreated) AuditBatch(at, event.path);
  if (event.type == zk::WatchType::kDeleted) stored_[at].is_there = false;
}

void TopicHistory::AuditBatch(Position at, const std::string& path) {
  zk::Stat stat;
  const std::string* data = ensemble_.tree().FindData(path);
  if (data == nullptr || !ensemble_.tree().FindStat(path, stat)) return Violate("the world: an event without a node");
  const absl::StatusOr<std::shared_ptr<const Batch>> batch = Batch::Decode(*data);
  if (!batch.ok()) return Violate("G1: a stored batch cannot be read");
  Stored& stored = stored_[at];
  stored.created = WallTime(std::chrono::milliseconds(stat.ctime_ms));
  for (int i = 0; i < (*batch)->size(); ++i) {
    stored.texts.emplace_back((*batch)->message(i));
    const bool is_new = positions_.emplace(stored.texts.back(), At(at, static_cast<std::size_t>(i))).second;
    if (!is_new) Violate(Cat("G4: ", stored.texts.back(), " was written twice"));
  }
}

// Of the last message.
Position TopicHistory::LastStored() const {
  for (auto at = stored_.rbegin(); at != stored_.rend(); ++at) {
    if (!at->second.texts.empty()) return At(at->first, at->second.texts.size() - 1);
  }
  return Position();
}

// ---- A history

void TopicHistory::Step() {
  SendAppends(Duration::zero());
  for (const auto& subscriber : subscribers_) {
    if (random_.Chance(0.02)) subscriber->is_running = false;  // it goes away, and comes back
    if (!subscriber->is_running && random_.Chance(0.5)) Subscribe(subscriber);
  }
  if (!positions_.empty() && random_.Chance(0.03) && subscribers_.size() < 8) {
    auto from = positions_.begin();
    std::advance(from, static_cast<std::ptrdiff_t>(random_.Below(positions_.size())));
    AddSubscriber(Cat("behind ", from->first), StartLatest{});
    Subscriber& subscriber = *subscribers_.back();
    subscriber.first = from->second;
    subscriber.position = from->second;
    subscriber.began_at = environment_.Now();
  }
  PassTime();
  HearOfAppends();
}

void TopicHistory::OnHealing() { AddSubscriber("the last from earliest", StartEarliest{}); }

bool TopicHistory::IsAllDone() {
  const Position last = LastStored();
  return std::all_of(subscribers_.begin(), subscribers_.end(),
                     [&](const auto& subscriber) { return subscriber->began_at && *subscriber->position >= last; });
}

void TopicHistory::Judge() {
  PassTime(kTrimSlack);
  if (!IsAllDone()) Violate("G9: a subscriber does not get to the end");
  JudgeAppends();
  JudgeOrder();
  JudgeTrim();
  for (const auto& subscriber : subscribers_) JudgeSubscriber(*subscriber);
}

void TopicHistory::JudgeAppends() {
  for (const auto& [text, fate] : fates_) {
    const bool is_stored = positions_.contains(text);
    if (fate == Fate::kOk && !is_stored) Violate(Cat("G1: ", text, " was accepted and is lost"));
    if (fate == Fate::kRefused && is_stored) Violate(Cat("G11: ", text, " was refused and is written"));
  }
}

// Inside one call the order given; between calls, if the first had returned.
void TopicHistory::JudgeOrder() {
  for (const Append& append : answered_) {
    for (std::size_t i = 1; i < append.texts.size(); ++i) {
      if (positions_[append.texts[i]] <= positions_[append.texts[i - 1]]) {
        Violate(Cat("G5: ", append.texts[i], " stands before what its call sent before it"));
      }
    }
    for (const Append& later : answered_) {
      if (*append.returned_at < later.sent_at && positions_[append.texts.back()] >= positions_[later.texts.front()]) {
        Violate(Cat("G5: ", later.texts.front(), " stands before ", append.texts.back(),
                    ", which had been accepted when it was sent"));
      }
    }
  }
}

// Only from the front, no more than the bounds ask for, and no less.
void TopicHistory::JudgeTrim() {
  const WallTime now = environment_.WallNow();
  std::int64_t behind = 0;  // messages from this batch on
  std::int64_t kept = 0;
  for (auto at = stored_.rbegin(); at != stored_.rend(); ++at) {
    const Stored& stored = at->second;
    const auto messages = static_cast<std::int64_t>(stored.texts.size());
    behind += messages;
    if (messages == 0) continue;
    if (stored.is_there) {
      if (kept + messages != behind) Violate(Cat("G9: a batch is missing behind ", at->first.DebugString()));
      kept = behind;
      if (now - stored.created > settings_.retention + kTrimSlack) Violate("G10: an old batch is not trimmed");
    } else if (behind <= settings_.max_messages && now - stored.created < settings_.retention) {
      Violate(Cat("G2: the batch at ", at->first.DebugString(), " was trimmed without need"));
    }
  }
  if (kept > settings_.max_messages) Violate("G10: a topic keeps more messages than it may");
}

void TopicHistory::JudgeSubscriber(const Subscriber& subscriber) {
  const auto was_told = [&](Position at) {
    return std::any_of(subscriber.told_trimmed.begin(), subscriber.told_trimmed.end(),
                       [&](const auto& told) { return told.first < at && at <= told.second; });
  };
  for (const auto& [position, stored] : stored_) {
    for (std::size_t i = 0; i < stored.texts.size(); ++i) {
      const Position at = At(position, i);
      const auto got = subscriber.got.find(at);
      if (got != subscriber.got.end() && got->second != stored.texts[i]) {
        Violate(Cat("G4: ", subscriber.name, " gets ", got->second, " instead of ", stored.texts[i]));
      }
      if (stored.is_there && was_told(at)) {
        Violate(Cat("G9: ", subscriber.name, " is told that ", stored.texts[i], " was trimmed, and it is there"));
      }
      const bool is_from_earliest = std::holds_alternative<StartEarliest>(subscriber.start);
      if (is_from_earliest && stored.is_there && at <= subscriber.first) {
        Violate(Cat("G9: ", subscriber.name, " begins behind ", stored.texts[i]));
      }
      if (at <= subscriber.first || got != subscriber.got.end() || was_told(at)) continue;
      Violate(Cat("G9: ", subscriber.name, " never gets ", stored.texts[i], " at ", at.DebugString()));
    }
  }
  for (const Append& append : answered_) {
    const bool is_later = append.sent_at > *subscriber.began_at;
    if (is_later && positions_[append.texts.front()] <= subscriber.first) {
      Violate(Cat("G9: ", subscriber.name, " begins behind ", append.texts.front(), ", which was sent later"));
    }
  }
}

}  // namespace postkeeper
