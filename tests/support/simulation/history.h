// What happened in one simulated run, as its clients, its replicas and an auditor of the store saw it.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_HISTORY_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_HISTORY_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "service/validate.h"
#include "zkstore/owner.h"
#include "zkstore/position.h"
#include "zkstore/text_id.h"

namespace postkeeper {

// When something happened: its number among all that was recorded, and the virtual time.
struct Moment {
  std::uint64_t number = 0;
  Instant at{};

  friend bool operator<(const Moment& a, const Moment& b) { return a.number < b.number; }
};

// Records only; the checkers (checkers.h) judge it when the run is over. Everything is in the order in which it
// happened. One thread.
struct History {
  // ---- The logs

  struct Log {
    std::string name;
    bool is_queue = true;
    Duration lease{};
    TopicSettings topic;
    std::optional<Moment> deleted;
    std::set<std::int64_t> handed_over_epochs;  // their owners let go in good order
    std::map<std::int64_t, Instant> taken_at;   // by epoch; only if the owner before had not let go
    // The first epochs of a process's reign and of the reign before, by epoch.
    struct Reign {
      std::int64_t first = 0;
      std::int64_t first_before = 0;
    };
    std::map<std::int64_t, Reign> reigns;
  };

  // A message in the store, as the auditor found it.
  struct Stored {
    std::string text;
    std::string message_id;
    Moment created;
    WallTime create_time{};  // the leader's clock
    std::optional<Moment> deleted;
    WallTime delete_time{};
  };
  using Place = std::pair<Uid, Position>;

  // ---- Producers

  enum class Fate { kOpen, kOk, kUnknown, kRefused };
  struct Append {
    std::string log;
    std::vector<std::string> texts;  // that no call had sent before
    // What is sent: `texts`, some of them twice, and texts of other calls. A text that is sent twice is its own
    // dedup_id.
    std::vector<std::string> messages;
    std::set<std::string> dedup_ids;
    std::string request_id;
    bool is_delayed = false;
    Moment sent;
    std::optional<Moment> returned;
    Fate fate = Fate::kOpen;
    bool was_unknown = false;  // of an earlier try; the client has repeated it
    // If the fate is kOk:
    std::vector<std::string> message_ids;
    std::set<std::uint32_t> duplicates;

    bool IsSafeToRepeat() const;
  };

  // ---- Consumers

  // A message that a replica gives to a consumer: the moment before it goes on the network.
  struct Delivery {
    std::string text;
    std::string message_id;
    LeaseToken token;
    std::int32_t attempt = 0;
    int stream = 0;  // 0: a Dequeue
    Moment asked;    // when that stream was opened, or Dequeue called
    Moment given;
    Duration zookeeper_silence{};      // since its replica sent the last request that was answered
    std::optional<Moment> given_back;  // its consumer has acked, nacked or released it, or tried to
  };
  // A lease that a stream's replica has told to the owner of an epoch, which has accepted the stream.
  struct Announcement {
    LeaseToken token;
    std::int64_t epoch = 0;
    Moment when;
    Duration remaining{};
  };
  struct Settle {
    LeaseToken token;
    std::string text;
    bool is_ack = false;
    Moment sent;
    enum class Answer { kNone, kOk, kAlreadySettled, kStale, kOther } answer = Answer::kNone;
    std::string detail;
    std::optional<Moment> answered;  // by the engine; also if nobody heard of it
    std::uint64_t epoch = 0;         // of the replica that answered
  };

  // ---- Subscribers

  struct Subscriber {
    std::string name;
    std::string topic;
    bool is_from_earliest = false;
    Moment asked;                 // for its first position
    std::optional<Moment> began;  // when it got it
    Position first;               // that position
    Position position;            // read so far
    std::map<Position, std::string> got;
    std::vector<std::pair<Position, Position>> told_trimmed;  // stood behind the first, was sent behind the second
  };

  // ---- Recording

  Moment Now(Instant at) { return {++moments, at}; }
  // Something that is wrong whatever else happened; the text begins with the promise.
  void Violate(Instant at, std::string text) { violations.emplace_back(Now(at), std::move(text)); }
  const Log* FindLog(const Uid& uid) const {
    const auto found = logs.find(uid);
    return found == logs.end() ? nullptr : &found->second;
  }
  // The incarnation that the name has now.
  std::optional<Uid> UidOf(const std::string& name) const {
    for (const auto& [uid, log] : logs) {
      if (log.name == name && !log.deleted) return uid;
    }
    return std::nullopt;
  }

  std::uint64_t moments = 0;
  std::map<Uid, Log> logs;
  std::map<Place, Stored> stored;
  std::map<std::string, std::vector<Place>> places;  // by text
  std::vector<std::shared_ptr<Append>> appends;
  // By text: calls that sent it, too, when nobody knew yet whether the first had written it. Any of them may have.
  std::map<std::string, std::vector<std::shared_ptr<Append>>> borrowers;
  std::deque<Delivery> deliveries;
  std::deque<Announcement> announcements;
  std::vector<std::shared_ptr<Settle>> settles;
  std::vector<std::shared_ptr<Subscriber>> subscribers;
  std::int64_t owner_writes = 0;    // made on behalf of a log by a process that is known
  std::int64_t calls_answered = 0;  // by a replica
  std::vector<std::pair<Moment, std::string>> violations;
  // When everything had been worked off; unset: never.
  std::optional<Moment> done;
  WallTime ended_at{};
};

// With a request_id, or a dedup_id on every message.
inline bool History::Append::IsSafeToRepeat() const {
  return !request_id.empty() ||
         std::all_of(messages.begin(), messages.end(), [this](const auto& text) { return dedup_ids.contains(text); });
}

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_HISTORY_H_
