// The request_ids and dedup_ids of one log, over changes of its owner.
#ifndef POSTKEEPER_SERVICE_ID_WINDOW_H_
#define POSTKEEPER_SERVICE_ID_WINDOW_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "service/append_ids.h"
#include "service/engine_context.h"
#include "service/log_ownership.h"
#include "zkstore/dedup_store.h"
#include "zkstore/log_reader.h"
#include "zkstore/signal.h"

namespace postkeeper {

// How it works. Ids stand in three places: in memory (AppendIds), in the batches of the log, and, when these are
// deleted, in dedup/ (DedupStore). When a reign begins, what is in dedup/ is read, and the engine reads its log from
// the front as it does anyway and tells of each batch. The window is known when both are done: the log up to where it
// ended after it was taken. What was on its way then cannot come later, since an append with an id checks the owner.
// Until then no id may be entered; calls wait (WaitUntilKnown). Memory is kept from one reign to the next: what was
// written is written.
//
// A znode of dedup/ that cannot be read may hold any id of its time: until that is past the window, ids are refused
// with STORE_CORRUPT, and nothing else is.
//
// While there is something saved, it is dropped as it gets too old; for a log whose calls have no ids nothing is done
// but one look at the beginning of a reign.
//
// Lives on the strand of its engine; held by shared_ptr, coroutines keep it alive until the reign ends.
class IdWindow : public std::enable_shared_from_this<IdWindow> {
 public:
  IdWindow(EngineContext& context, const Uid& log, asio::any_io_executor strand);

  // A reign begins; `followed`: what lies before it was deleted by earlier owners. `taken_at`: not before the moment at
  // which the log was taken as `held` says.
  void Begin(const OwnerView& held, Instant taken_at, std::shared_ptr<LogReader> reader, Position followed);
  // The same reign under another session.
  void SetOwner(const OwnerView& held) { held_ = held; }
  void End();

  // From whoever follows the log: this batch is in it, and all before `followed` was read.
  void OnRead(Position at, const Batch& batch) {
    if (batch.has_ids()) Learn(at, batch);
  }
  void OnFollowed(Position followed) {
    followed_ = followed;
    if (waiting_ > 0 && is_known()) progress_.Notify();
  }

  // Ids may be entered.
  bool is_known() const;
  // OK when the log is held and is_known; waits at most `timeout`. LogOwnership::WaitUntilHeld's errors, NO_OWNER if it
  // takes longer, STORE_CORRUPT.
  Task<absl::Status> WaitUntilKnown(std::shared_ptr<LogOwnership> ownership, Duration timeout);

  // Enters the ids of a call, and takes out of it what is not to be written. Null: `done` was called or will be; the
  // call is known, is refused, or waits for another one, and is then given to `again`. Else the call is to be appended,
  // and the outcome to be given to ids().Finish with what is returned.
  using Done = LogAppender::Done;
  using Again = std::function<void(CheckedAppend append, Done done)>;
  std::shared_ptr<const AppendIds::Held> Enter(CheckedAppend& append, Done& done, const std::string& full_name,
                                               Again again);

  AppendIds& ids() { return *ids_; }
  // Of this reign: what deletes batches asks it. Null before the first.
  const std::shared_ptr<DedupStore>& store() const { return store_; }

 private:
  void Learn(Position at, const Batch& batch);
  void Learn(const BatchIds& batch);
  Task<void> Load(std::shared_ptr<IdWindow> self, std::uint64_t reign, std::shared_ptr<LogReader> reader);
  Task<absl::Status> LoadOnce(std::uint64_t reign, std::shared_ptr<LogReader> reader);
  void StartDropping();
  Task<void> DropFromTimeToTime(std::shared_ptr<IdWindow> self, std::uint64_t reign);

  EngineContext& context_;
  const Uid log_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  const std::shared_ptr<AppendIds> ids_;
  std::shared_ptr<DedupStore> store_;
  OwnerView held_;
  std::uint64_t reign_ = 0;  // counts Begin and End
  Position followed_;
  std::optional<Position> tail_;  // of the log after it was taken
  bool is_store_read_ = false;
  std::optional<Instant> damaged_until_;
  std::string damaged_path_;
  bool is_dropping_ = false;
  int waiting_ = 0;
  Signal progress_;
  Signal drop_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_ID_WINDOW_H_
