#include "zkstore/batch_cache.h"

namespace postkeeper {

std::shared_ptr<const Batch> BatchCache::Find(const Uid& log, Position batch) {
  absl::MutexLock lock(&mutex_);
  auto found = by_key_.find(Key{log, batch});
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->batch;
}

void BatchCache::Insert(const Uid& log, Position position, std::shared_ptr<const Batch> batch) {
  absl::MutexLock lock(&mutex_);
  const Key key{log, position};
  if (batch->memory_bytes() > bytes_max_ || by_key_.contains(key)) return;
  bytes_ += batch->memory_bytes();
  entries_.push_front({key, std::move(batch)});
  by_key_.emplace(key, entries_.begin());
  while (bytes_ > bytes_max_) Remove(std::prev(entries_.end()));
}

void BatchCache::Erase(const Uid& log, Position batch) {
  absl::MutexLock lock(&mutex_);
  auto found = by_key_.find(Key{log, batch});
  if (found != by_key_.end()) Remove(found->second);
}

void BatchCache::Remove(Entries::iterator entry) {
  bytes_ -= entry->batch->memory_bytes();
  by_key_.erase(entry->key);
  entries_.erase(entry);
}

std::size_t BatchCache::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

}  // namespace postkeeper
