// Batches in memory, so that what was just written or read is not fetched again.
#ifndef POSTKEEPER_ZKSTORE_BATCH_CACHE_H_
#define POSTKEEPER_ZKSTORE_BATCH_CACHE_H_

#include <cstdint>
#include <list>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "zkstore/batch.h"

namespace postkeeper {

// One for all logs of a process; the batches least recently used go first. Thread-safe.
class BatchCache {
 public:
  explicit BatchCache(std::size_t bytes_max) : bytes_max_(bytes_max) {}

  // Null if it is not there.
  std::shared_ptr<const Batch> Find(const Uid& log, Position batch);
  // A batch is never modified, so inserting it again changes nothing.
  void Insert(const Uid& log, Position position, std::shared_ptr<const Batch> batch);
  void Erase(const Uid& log, Position batch);
  std::size_t bytes() const;

 private:
  struct Key {
    Uid log;
    Position batch;
    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.log, key.batch);
    }
  };
  struct Entry {
    Key key;
    std::shared_ptr<const Batch> batch;
  };
  using Entries = std::list<Entry>;

  void Remove(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::size_t bytes_max_;
  mutable absl::Mutex mutex_;                // held for constant time only; no other lock is taken under it
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // the most recently used first
  absl::flat_hash_map<Key, Entries::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
  std::size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_BATCH_CACHE_H_
