// The clients in common, the producers, and the subscribers.
#include "tests/support/simulation/clients.h"

#include <algorithm>

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kRepeatsMax = 4;
// How many calls back a producer looks for a message to send again.
constexpr std::size_t kCallsBackMax = 12;
constexpr int kSubscribersMax = 8;

// What a subscriber may be told when a stream ends: it comes back.
bool IsPassing(const absl::Status& status) {
  return HasReason(status, Reason::kNoOwner) || HasReason(status, Reason::kZookeeperUnavailable) ||
         HasReason(status, Reason::kReplicaDraining) || HasReason(status, Reason::kOutcomeUnknown);
}

CheckedAppend MakeAppendOf(const History::Append& record, WallTime due = NewMessage::kNotDelayed) {
  CheckedAppend append = MakeAppend(record.messages, record.request_id, due);
  for (NewMessage& message : append.messages) {
    if (!record.dedup_ids.contains(message.bytes)) continue;
    message.dedup_id = HashOfDedupId(message.bytes);
    ++append.dedup_ids;
  }
  return append;
}

std::vector<std::string> IdsOf(const Appended& answer) {
  std::vector<std::string> ids;
  for (std::uint32_t i = 0; i < answer.size(); ++i) ids.push_back(answer.MessageId(i));
  return ids;
}

std::set<std::uint32_t> DuplicatesOf(const Appended& answer) {
  std::set<std::uint32_t> indexes;
  if (!answer.duplicates) return indexes;
  for (const Duplicate& duplicate : *answer.duplicates) indexes.insert(duplicate.index);
  return indexes;
}

void AppendAt(QueueEngine& engine, CheckedAppend append, LogAppender::Done done) {
  engine.Enqueue(std::move(append), std::move(done));
}
void AppendAt(TopicEngine& engine, CheckedAppend append, LogAppender::Done done) {
  engine.Publish(std::move(append), std::move(done));
}

}  // namespace

Clients::Clients(Cluster& cluster, const SimulationOptions& options)
    : cluster_(cluster),
      history_(cluster.history()),
      random_(cluster.random()),
      options_(options),
      operations_left_(options.operations) {}

void Clients::Start() {
  for (int i = 0; i < options_.producers; ++i) Act(Produce());
  if (options_.queues > 0) {
    for (int i = 0; i < options_.pollers; ++i) Act(Poll());
  }
  for (int i = 0; i < options_.queues; ++i) Act(Consume(QueueName(i)));
  for (int i = 0; i < options_.topics; ++i) {
    Act(Subscribe(TopicName(i), AddSubscriber(i, Cat("earliest of t", i), true)));
    Act(Subscribe(TopicName(i), AddSubscriber(i, Cat("latest of t", i), false)));
  }
  if (options_.topics > 0) Act(AddSubscribersNowAndThen());
}

void Clients::BeginCalm() {
  is_calm_ = true;
  for (int i = 0; i < options_.topics; ++i) {
    Act(Subscribe(TopicName(i), AddSubscriber(i, Cat("last from earliest of t", i), true)));
  }
}

void Clients::Finish() {
  is_over_ = true;
  for (const auto& stream : streams_) Leave(stream, false);
  for (const auto& reading : readings_) reading->is_open = false;
}

void Clients::Act(Task<void> task) { Spawn(cluster_.environment().executor(), Actor(std::move(task))); }

Task<void> Clients::Actor(Task<void> task) {
  ++actors_;
  co_await std::move(task);
  --actors_;
}

Task<void> Clients::WaitFor(Duration duration) {
  const Instant end = cluster_.environment().Now() + duration;
  while (!is_over_ && cluster_.environment().Now() < end) {
    const Duration left = end - cluster_.environment().Now();
    co_await SleepFor(cluster_.environment(), std::min<Duration>(left, seconds(1)));
  }
}

Task<void> Clients::Pause() {
  const bool is_long = !is_calm_ && random_.Chance(0.08);
  const Duration pause = random_.Between(milliseconds(0), is_long ? milliseconds(6000) : milliseconds(300));
  co_await WaitFor(pause);
}

bool Clients::TakeOperation() {
  if (is_calm_ || operations_left_ <= 0) return false;
  --operations_left_;
  return true;
}

int Clients::PickSlot() {
  const std::vector<int> serving = cluster_.ServingSlots();
  if (serving.empty() || random_.Chance(0.05)) return static_cast<int>(random_.Below(Cluster::kSlots));
  return serving[random_.Below(serving.size())];
}

void Clients::SendFrame(Instant& last_arrival, std::function<void()> receive) {
  const Instant now = cluster_.environment().Now();
  last_arrival = std::max(last_arrival, now + cluster_.Latency());
  cluster_.environment().RunAfter(last_arrival - now, std::move(receive));
}

// ---- Producers

Task<void> Clients::Produce() {
  while (TakeOperation()) {
    co_await Pause();
    const auto log = static_cast<int>(random_.Below(static_cast<std::uint64_t>(options_.queues + options_.topics)));
    if (log < options_.queues) {
      co_await Append<QueueEngine>(QueueName(log));
    } else {
      co_await Append<TopicEngine>(TopicName(log - options_.queues));
    }
  }
}

// Some messages get a dedup_id. Some of these are sent once more in the same call, and some of other calls of late in
// this one, also if nobody knows yet what has become of them there.
void Clients::GiveDedupIds(const std::shared_ptr<History::Append>& record) {
  record->messages = record->texts;
  if (!random_.Chance(0.4)) return;
  const bool have_all = random_.Chance(0.5);
  for (const std::string& text : record->texts) {
    if (have_all || random_.Chance(0.5)) record->dedup_ids.insert(text);
  }
  if (record->is_delayed) return;
  if (!record->dedup_ids.empty() && random_.Chance(0.3)) record->messages.push_back(*record->dedup_ids.begin());
  std::vector<std::pair<std::shared_ptr<History::Append>, std::string>> others;
  for (std::size_t back = 0; back < std::min(kCallsBackMax, history_.appends.size()); ++back) {
    const auto& other = *(history_.appends.rbegin() + static_cast<std::ptrdiff_t>(back));
    if (other->log != record->log || other->is_delayed) continue;
    for (const std::string& text : other->texts) {
      if (other->dedup_ids.contains(text)) others.emplace_back(other, text);
    }
  }
  if (others.empty() || !random_.Chance(0.5)) return;
  const auto& [other, text] = others[random_.Below(others.size())];
  record->messages.insert(record->messages.begin() + static_cast<std::ptrdiff_t>(random_.Below(2)), text);
  record->dedup_ids.insert(text);
  if (other->fate != History::Fate::kOk) history_.borrowers[text].push_back(record);
}

// What a call with answer OK was told. Of its first try it is known what must have been a duplicate.
void Clients::Remember(const std::shared_ptr<History::Append>& record, const Appended& answer, bool is_first_try) {
  record->message_ids = IdsOf(answer);
  record->duplicates = DuplicatesOf(answer);
  if (record->message_ids.size() != record->messages.size()) {
    return Violate(Cat("G4: ", record->texts.front(), " got ", record->message_ids.size(), " ids"));
  }
  std::set<std::string> before;
  for (std::uint32_t i = 0; i < record->messages.size() && is_first_try; ++i) {
    const std::string& text = record->messages[i];
    const bool is_own = std::find(record->texts.begin(), record->texts.end(), text) != record->texts.end();
    const bool is_second = !before.insert(text).second;
    if (history_.borrowers.contains(text) && !is_second) continue;
    const bool must_be_duplicate = is_second || !is_own;
    if (record->duplicates.contains(i) == must_be_duplicate) continue;
    Violate(Cat("G4: ", text, must_be_duplicate ? " is not told to be a duplicate" : " is called a duplicate"));
  }
}

template <typename Engine>
Task<void> Clients::Append(Name name) {
  auto record = std::make_shared<History::Append>();
  record->log = name.id;
  const std::uint64_t count = 1 + random_.Below(3);
  for (std::uint64_t i = 0; i < count; ++i) record->texts.push_back(Cat("m", messages_made_++));
  if (random_.Chance(0.4)) record->request_id = record->texts.front();
  record->is_delayed = name.kind == Name::Kind::kQueue && random_.Chance(0.1);
  const Duration delay = record->is_delayed ? random_.Between(milliseconds(1), seconds(15)) : Duration::zero();
  GiveDedupIds(record);
  record->sent = cluster_.Now();
  history_.appends.push_back(record);
  for (int tries = 1;; ++tries) {
    const std::optional<AppendAnswer> answer = co_await TryAppend<Engine>(name, record, delay);
    const bool is_unknown = !answer || HasReason(answer->status(), Reason::kOutcomeUnknown);
    const bool may_pass = is_unknown || (!record->dedup_ids.empty() && IsPassing(answer->status()));
    if (may_pass && record->IsSafeToRepeat() && tries < kRepeatsMax && !is_over_) {
      record->was_unknown = record->was_unknown || is_unknown;
      co_await Pause();
      continue;
    }
    using Fate = History::Fate;
    record->fate = is_unknown ? Fate::kUnknown : answer->ok() ? Fate::kOk : Fate::kRefused;
    if (record->was_unknown && record->fate == Fate::kRefused) record->fate = Fate::kUnknown;  // the first may be in
    record->returned = cluster_.Now();
    if (record->fate == Fate::kOk) Remember(record, **answer, tries == 1);
    const bool repeats = record->fate == Fate::kOk && record->IsSafeToRepeat() && random_.Chance(0.4);
    if (repeats) Act(RepeatLater<Engine>(name, record, delay, **answer));
    co_return;
  }
}

// nullopt: nothing was heard.
template <typename Engine>
Task<std::optional<Clients::AppendAnswer>> Clients::TryAppend(Name name, std::shared_ptr<History::Append> record,
                                                              Duration delay) {
  const int slot = PickSlot();
  cluster_.Trace(Cat("a producer sends ", record->texts.front(), "+", record->texts.size() - 1, " to ", name.id,
                     " by replica ", slot));
  Cluster::Work<Engine, AppendAnswer> work = [this, record, delay](std::shared_ptr<Engine> engine, ProcessPtr process) {
    return ServeAppend<Engine>(std::move(engine), std::move(process), record, delay);
  };
  const AppendSize size = SizeOf(MakeAppendOf(*record));
  std::optional<AppendAnswer> answer =
      co_await cluster_.Call<Engine, AppendAnswer>(slot, name, std::move(work), Cluster::kCallDeadline, nullptr, size);
  cluster_.Trace(Cat("a producer hears of ", record->texts.front(), ": ",
                     !answer        ? "nothing"
                     : answer->ok() ? "OK"
                                    : answer->status().message()));
  co_return answer;
}

// As clients do that have not heard the answer: whoever owns the log by then, and whatever became of the messages, it
// is the same.
template <typename Engine>
Task<void> Clients::RepeatLater(Name name, std::shared_ptr<History::Append> record, Duration delay, Appended first) {
  const Duration pause = random_.Between(seconds(0), seconds(60));
  co_await WaitFor(pause);
  if (is_over_) co_return;
  const std::optional<AppendAnswer> again = co_await TryAppend<Engine>(name, record, delay);
  if (!again || !again->ok()) co_return;
  // By their dedup_ids all are duplicates then; by a request_id it is the answer as it was.
  const bool is_same =
      IdsOf(**again) == IdsOf(first) && (record->request_id.empty() || DuplicatesOf(**again) == DuplicatesOf(first));
  if (!is_same) Violate(Cat("G4: the repeat of ", record->texts.front(), " got another answer"));
}

template <typename Engine>
Task<Clients::AppendAnswer> Clients::ServeAppend(std::shared_ptr<Engine> engine, ProcessPtr process,
                                                 std::shared_ptr<History::Append> record, Duration delay) {
  struct Waiting {
    Waiting(Environment& environment, const asio::any_io_executor& strand) : done(environment, strand) {}
    Signal done;
    std::optional<AppendAnswer> answer;
  };
  ProcessEnvironment& environment = process->replica->environment();
  const auto waiting = std::make_shared<Waiting>(environment, engine->strand());
  WallTime due = NewMessage::kNotDelayed;
  if (record->is_delayed) due = environment.WallNow() + std::chrono::floor<milliseconds>(delay);
  AppendAt(*engine, MakeAppendOf(*record, due), [this, waiting](AppendAnswer answer) {
    if (waiting->answer) Violate("G10: a call is answered twice");
    waiting->answer = std::move(answer);
    waiting->done.Notify();
  });
  while (!waiting->answer) co_await waiting->done.Wait();
  co_return *waiting->answer;
}

// ---- Subscribers

Clients::SubscriberPtr Clients::AddSubscriber(int topic, std::string name, bool is_from_earliest) {
  auto subscriber = std::make_shared<History::Subscriber>();
  subscriber->name = std::move(name);
  subscriber->topic = Cat("t", topic);
  subscriber->is_from_earliest = is_from_earliest;
  subscriber->asked = cluster_.Now();
  history_.subscribers.push_back(subscriber);
  return subscriber;
}

Task<void> Clients::AddSubscribersNowAndThen() {
  while (!is_calm_ && !is_over_ && history_.subscribers.size() < kSubscribersMax) {
    co_await WaitFor(random_.Between(seconds(1), seconds(20)));
    const auto topic = static_cast<int>(random_.Below(static_cast<std::uint64_t>(options_.topics)));
    const std::optional<Uid> uid = history_.UidOf(Cat("t", topic));
    auto from = history_.stored.lower_bound({*uid, Position()});
    std::vector<const std::pair<const History::Place, History::Stored>*> there;
    for (; from != history_.stored.end() && from->first.first == *uid; ++from) there.push_back(&*from);
    if (there.empty() || is_calm_ || is_over_) continue;
    const auto* place = there[random_.Below(there.size())];
    const SubscriberPtr subscriber = AddSubscriber(topic, Cat("behind ", place->second.text), false);
    subscriber->began = subscriber->asked;
    subscriber->first = subscriber->position = place->first.second;
    Act(Subscribe(TopicName(topic), subscriber));
  }
}

Task<void> Clients::Subscribe(Name name, SubscriberPtr subscriber) {
  while (!is_over_) {
    TakeOperation();
    const auto reading = std::make_shared<Reading>();
    readings_.push_back(reading);
    if (!is_calm_ && random_.Chance(0.5)) {
      // It goes away, and comes back.
      cluster_.environment().RunAfter(random_.Between(seconds(1), seconds(40)),
                                      [reading] { reading->is_open = false; });
    }
    if (!subscriber->began) subscriber->asked = cluster_.Now();
    Cluster::Work<TopicEngine, StreamAnswer> work = [this, subscriber, reading](std::shared_ptr<TopicEngine> engine,
                                                                                ProcessPtr process) {
      return ServeSubscribe(std::move(engine), std::move(process), subscriber, reading);
    };
    const int slot = PickSlot();
    cluster_.Trace(Cat(subscriber->name, " asks replica ", slot));
    const std::optional<StreamAnswer> answer =
        co_await cluster_.Call<TopicEngine, StreamAnswer>(slot, name, std::move(work), std::chrono::hours(10), nullptr);
    // The end of a stream comes behind its frames.
    while (answer && reading->frames_on_their_way > 0) co_await SleepFor(cluster_.environment(), milliseconds(1));
    cluster_.Trace(Cat(subscriber->name, answer ? " hears the end of its stream" : " has a broken stream"));
    reading->is_open = false;
    std::erase(readings_, reading);
    if (answer && !answer->ok()) Fail(*subscriber, answer->status());
    co_await Pause();
  }
}

Task<Clients::StreamAnswer> Clients::ServeSubscribe(std::shared_ptr<TopicEngine> engine, ProcessPtr process,
                                                    SubscriberPtr subscriber, std::shared_ptr<Reading> reading) {
  CheckedStart start = StartLatest{};
  if (subscriber->is_from_earliest) start = StartEarliest{};
  if (subscriber->began) start = *DecodePosition(EncodePosition(engine->uid(), subscriber->position));
  cluster_.Trace(Cat(subscriber->name, " reads at replica ", process->slot));
  absl::StatusOr<TopicEngine::Step> step = co_await engine->BeginAt(std::move(start));
  while (reading->is_open && !process->is_dead) {
    if (!step.ok()) co_return step.status();
    ++reading->frames_on_their_way;
    SendFrame(reading->last_arrival, [this, subscriber, reading, sent = *step] {
      --reading->frames_on_their_way;
      if (reading->is_open) Receive(*subscriber, sent);
    });
    const Position read_so_far = step->position;
    step = co_await engine->ReadAfter(read_so_far, seconds(1));
  }
  co_return true;
}

void Clients::Receive(History::Subscriber& subscriber, const TopicEngine::Step& step) {
  if (!subscriber.began) {
    subscriber.began = cluster_.Now();
    subscriber.first = subscriber.position = step.position;
    cluster_.Trace(Cat(subscriber.name, " begins behind ", step.position.DebugString()));
  }
  if (step.position < subscriber.position) {
    return Violate(Cat("G9: ", subscriber.name, " is sent back from ", subscriber.position.DebugString(), " to ",
                       step.position.DebugString()));
  }
  if (step.batch) {
    for (int i = static_cast<int>(step.first_index); i < step.batch->size(); ++i) {
      const Position at = Position::FromValue(step.batch_position.value() + static_cast<std::uint64_t>(i));
      if (at <= subscriber.position) Violate(Cat("G9: ", subscriber.name, " gets a message twice"));
      subscriber.got.emplace(at, step.batch->message(i));
      cluster_.Trace(Cat(subscriber.name, " gets ", std::string(step.batch->message(i)), " at ", at.DebugString()));
    }
  }
  subscriber.position = step.position;
}

void Clients::Fail(History::Subscriber& subscriber, const absl::Status& status) {
  cluster_.Trace(Cat(subscriber.name, " is told ", status.message()));
  if (IsPassing(status)) return;
  if (!HasReason(status, Reason::kPositionTrimmed) || !subscriber.began) {
    return Violate(Cat("G9: ", subscriber.name, " is told ", status.message()));
  }
  const std::optional<PositionText> text = DecodePosition(DetailsOf(status).oldest_position);
  if (!text) return Violate(Cat("G9: ", subscriber.name, " is told OUT_OF_RANGE without a position"));
  const absl::StatusOr<Position> oldest = PositionOf(*text, *history_.UidOf(subscriber.topic), subscriber.topic);
  if (!oldest.ok() || *oldest <= subscriber.position) {
    return Violate(Cat("G9: ", subscriber.name, " is told OUT_OF_RANGE with a position that does not help"));
  }
  subscriber.told_trimmed.emplace_back(subscriber.position, *oldest);
  subscriber.position = *oldest;
}

}  // namespace postkeeper
