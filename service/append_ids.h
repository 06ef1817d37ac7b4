// What was written under the ids of calls and messages, for the repeats of these.
#ifndef POSTKEEPER_SERVICE_APPEND_IDS_H_
#define POSTKEEPER_SERVICE_APPEND_IDS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <queue>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "service/validate.h"
#include "zkstore/dedup_store.h"
#include "zkstore/environment.h"
#include "zkstore/log_appender.h"

namespace postkeeper {

// One log's window, in memory; IdWindow fills it after a change of owner. A request_id stands for a call and its
// answer, a dedup_id for one message. An id is entered when its messages are given to the appender, all ids of a call
// together; it is *open* until their fate is known. One whose messages were not written is forgotten, so that the next
// call writes them. One whose outcome is not known stays open until the appender knows, or its batch is read.
//
// A second call with a request_id gets the answer of the first, once it is known, whatever its messages are. Of a call
// with dedup_ids, those messages are written whose ids are not known; of equal ids in one call the first is. If one of
// them is open the call cannot be judged: it holds nothing, and waits for that fate (FindOpen, WaitFor). Then it is
// judged anew, and so writes what the other one could not. What waits for a fate that the appender itself does not know
// waits no longer than kPatience, and is then told OUTCOME_UNKNOWN.
//
// A call of which nothing is left to be written is answered without a trace; its request_id is not remembered.
//
// Ids are known by their hashes (id_hash.h says why that is enough).
//
// Bounded by time and number: an id is kept for `window` after its messages were written; past `ids_max` ids a new one
// is refused, since forgetting one early would let its repeat write twice. A duplicate that is part of the answer to a
// request_id counts as one more. What is read from the store is never refused. Lives on one strand; all calls are made
// there, and callbacks are called there. Held by shared_ptr.
class AppendIds : public std::enable_shared_from_this<AppendIds> {
 public:
  using Done = LogAppender::Done;
  static constexpr Duration kPatience = std::chrono::seconds(1);

  AppendIds(Environment& environment, asio::any_io_executor strand, std::size_t ids_max, Duration window);

  // The ids that one call has entered.
  struct Held {
    struct Message {
      IdHash dedup_id;
      std::uint32_t offset = 0;  // among the messages of the call that are written
    };
    std::optional<IdHash> request_id;
    std::vector<Message> messages;
    Duplicates duplicates;  // among the messages of the call; for the appender
  };

  // The id of this call that has to be waited for: the dedup_id of a message, unless its request_id is known, which
  // then decides; or that itself, where it is looked at.
  std::optional<IdHash> FindOpen(const CheckedAppend& append, bool looks_at_request_id = false) const;
  // `done` is called with the fate of the messages of this id, which is open, or with OUTCOME_UNKNOWN.
  void WaitFor(const IdHash& id, Done done);

  enum class Entered {
    kNew,    // append what is left in `append`, and give the outcome to Finish; `done` was not taken
    kKnown,  // `done` was called, or will be by Finish
    kFull,   // no room; nothing was taken
    kOpen,   // a dedup_id of it is open after all; nothing was taken
  };
  // Of a call without an open dedup_id. Takes the duplicates out of `append`.
  Entered Enter(CheckedAppend& append, Done& done, Held& held);
  // What the appender says: OUTCOME_UNKNOWN for the time being, or the fate of the messages. Answers who waits.
  void Finish(const Held& held, const absl::StatusOr<Appended>& outcome);
  // What was read says that the messages of this id are written, at that time, the latest if they are several. Returns
  // the time that counts, which is the later one if Finish has said so, too.
  Instant Learn(const IdHash& id, const Appended& appended, Instant written_at);

  // What counts for the bound.
  std::size_t size() const { return ids_.size() + duplicates_; }

 private:
  struct Entry {
    std::optional<Appended> written;
    Instant written_at{};
    std::uint32_t duplicates = 0;  // that are kept with it
    bool is_unknown = false;       // the first call was told OUTCOME_UNKNOWN, and nothing more is known since
    std::vector<Done> waiting;
  };
  using Ids = absl::flat_hash_map<IdHash, Entry>;
  // Of an id that may be past the window at that time.
  struct Expiry {
    Instant written_at;
    IdHash id;
    bool operator<(const Expiry& other) const { return written_at > other.written_at; }  // the oldest on top
  };
  // What is to become of the messages of a call with dedup_ids.
  struct Sorted {
    std::vector<Held::Message> fresh;
    std::vector<Duplicate> duplicates;
    bool has_open = false;
  };
  Sorted Sort(const CheckedAppend& append) const;
  void Wait(const IdHash& id, Entry& entry, Done done);
  void FinishOne(const IdHash& id, const absl::StatusOr<Appended>& outcome, bool is_forgotten_if_unknown,
                 std::vector<Done>& told);
  void SetWritten(const IdHash& id, Entry& entry, const Appended& appended, Instant written_at);
  void SetDuplicates(Entry& entry, std::uint32_t duplicates);
  void Erase(Ids::iterator entry);
  void Expire();
  void LosePatience();

  Environment& environment_;
  const std::size_t ids_max_;
  const Duration window_;
  Ids ids_;
  std::size_t duplicates_ = 0;            // kept with all of them
  std::priority_queue<Expiry> expiries_;  // of ids that are written
  std::vector<IdHash> unknown_repeated_;  // since the timer was started
  std::unique_ptr<Timer> patience_timer_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_APPEND_IDS_H_
