// The ids of messages whose batches are deleted, for the repeats of the calls and messages that brought them.
#ifndef POSTKEEPER_ZKSTORE_DEDUP_STORE_H_
#define POSTKEEPER_ZKSTORE_DEDUP_STORE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "zkstore/batch.h"
#include "zkstore/client.h"
#include "zkstore/id_hash.h"
#include "zkstore/layout.h"
#include "zkstore/owner.h"

namespace postkeeper {

// An id, of either kind, whose messages are in a batch; a dedup_id has one.
struct HashedId {
  IdHash hash;
  std::uint32_t first_index = 0;
  std::uint32_t count = 0;
  Duplicates duplicates = nullptr;  // of the same call, for a request_id

  friend bool operator==(const HashedId& a, const HashedId& b) {
    const bool have_equal_duplicates =
        a.duplicates && b.duplicates ? *a.duplicates == *b.duplicates : a.duplicates == b.duplicates;
    return a.hash == b.hash && a.first_index == b.first_index && a.count == b.count && have_equal_duplicates;
  }
};

// All ids of one batch, and what the answers to repeats are made of.
struct BatchIds {
  Writer writer;
  Instant written_at{};  // the window begins here
  std::vector<HashedId> ids;
  std::size_t bytes = 0;  // of a record, at most; DedupStore's own
};

// One log's dedup/, in the hands of its owner, for one reign.
//
// How it works. Whoever reads the log tells which batches have ids (Learn). A write that deletes batches asks Carry for
// the operation that saves their ids in the same multi, so that there is no moment at which an id stands neither in the
// log nor here, whatever is lost or re-sent. Ids are packed: the owner's latest znode is written again with more ids
// until it is kNodeBytesMax, then another one begins. Batches without ids, and ids past the window, cost nothing. A
// znode is dropped when its newest id is past the window.
//
// Bounded by the window's ids (the owner refuses new ones past its limit): some 36 bytes in ZooKeeper for an id that
// came in a batch of its own, some 20 for one of many. One write adds at most the ids of the batches that it deletes;
// callers bound them by BytesOf.
//
// Times. The store has the leader's clock, since replicas' clocks differ; in memory they are Instants. The two are
// related once, by the moment at which this owner took the log.
//
// Belongs to the strand of its log; held by shared_ptr.
class DedupStore {
 public:
  static constexpr std::size_t kNodeBytesMax = 8 << 10;
  // What one batch, and one id in it, add to a write at most.
  static constexpr std::size_t kBytesPerBatch = 80;
  static constexpr std::size_t kBytesPerId = 22;
  // What its duplicates add to an id, besides kBytesPerDuplicate for each.
  static constexpr std::size_t kBytesPerAnswer = 32;

  // `held`: as it was taken, at `taken_at`.
  DedupStore(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log, const OwnerView& held,
             Instant taken_at, Duration window);

  Instant InstantOf(WallTime leader_time) const;
  WallTime LeaderTimeOf(Instant instant) const;
  bool IsInWindow(Instant written_at) const { return written_at + window_ > environment_.Now(); }

  // ---- What earlier owners saved

  struct Saved {
    std::vector<BatchIds> batches;
    std::optional<Instant> damaged_until;  // ids are missing that may be in the window until then
    std::string damaged_path;
  };
  // To be called after the log was taken; again if it fails. ZOOKEEPER_UNAVAILABLE.
  Task<absl::StatusOr<Saved>> Load();

  // ---- Deleting batches

  void Learn(Position batch, BatchIds ids);
  // What the deletion of this batch adds to a write, about; 0 if it has no ids in the window.
  std::size_t BytesOf(Position batch) const;
  // The operation that must stand in a multi that deletes these batches. None if they have no ids in the window. One
  // such write at a time: it may be asked for again with other batches until OnWritten says that the latest is in.
  // NODEEXISTS of its create, and NONODE of its set, answer a copy of an earlier try: the other one is meant then.
  std::optional<zk::Op> Carry(const std::vector<Position>& batches);
  void OnWritten();

  // ---- Dropping

  // Forgets batches that are past the window, and returns the paths of znodes that are.
  std::vector<std::string> TakeExpired();
  // Nothing is saved here, and no batch with ids is known.
  bool is_empty() const { return nodes_.empty() && batches_.empty(); }
  // A znode returned by TakeExpired is still there.
  void DropLater(std::string path) { nodes_[std::move(path)] = Instant::min(); }

 private:
  struct Node {
    std::uint64_t number = 0;
    std::vector<BatchIds> batches;
    std::size_t bytes = 0;  // as encoded
  };
  std::string PathOf(const Node& node) const { return layout_.Dedup(log_, epoch_, node.number); }
  std::string Encode(const std::vector<BatchIds>& batches) const;
  bool Decode(std::string_view data, std::vector<BatchIds>& batches) const;

  // Constant after construction.
  Environment& environment_;
  zk::Client& client_;
  const Layout layout_;
  const Uid log_;
  const std::int64_t epoch_;  // of the first ownership of this reign: names this owner's znodes
  const Instant taken_at_;
  const WallTime taken_at_leader_;
  const Duration window_;

  absl::btree_map<Position, BatchIds> batches_;  // in the log
  absl::btree_map<std::string, Instant> nodes_;  // by path; when their newest id was written
  std::optional<Node> latest_;                   // of this owner
  struct Carrying {
    Node node;
    std::vector<Position> batches;
  };
  std::optional<Carrying> carrying_;  // not yet known to be in
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_DEDUP_STORE_H_
