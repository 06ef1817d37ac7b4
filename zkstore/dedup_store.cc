#include "zkstore/dedup_store.h"

#include <algorithm>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/mutation.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;

// Farther apart no two moments are, whatever a record says.
constexpr milliseconds kLongestAge = std::chrono::hours(24 * 365 * 10);

bool IsSameChain(const Writer& a, const Writer& b) { return a.process == b.process && a.generation == b.generation; }

Instant NewestOf(const std::vector<BatchIds>& batches) {
  Instant newest = Instant::min();
  for (const BatchIds& batch : batches) newest = std::max(newest, batch.written_at);
  return newest;
}

}  // namespace

DedupStore::DedupStore(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log,
                       const OwnerView& held, Instant taken_at, Duration window)
    : environment_(environment),
      client_(client),
      layout_(layout),
      log_(log),
      epoch_(held.epoch),
      taken_at_(taken_at),
      taken_at_leader_(held.written),
      window_(window) {}

// What is said to lie in the future (the leader's clock was set back) was written now.
Instant DedupStore::InstantOf(WallTime leader_time) const {
  const WallTime known = std::clamp(leader_time, taken_at_leader_ - kLongestAge, taken_at_leader_ + kLongestAge);
  return std::min(taken_at_ + (known - taken_at_leader_), environment_.Now());
}

WallTime DedupStore::LeaderTimeOf(Instant instant) const {
  return taken_at_leader_ + std::chrono::ceil<milliseconds>(instant - taken_at_);
}

// ---- Reading

Task<absl::StatusOr<DedupStore::Saved>> DedupStore::Load() {
  Saved saved;
  if (IsMutated(Mutation::kIgnoreDeletedIds)) co_return saved;
  const zk::Response names = co_await client_.Children(layout_.Dedups(log_));
  if (names.code != zk::Code::kOk) co_return UnavailableError(names, "list the ids of deleted batches");
  for (const std::string& name : names.children) {
    const std::optional<Layout::DedupName> parsed = Layout::ParseDedup(name);
    if (!parsed || parsed->epoch == epoch_) continue;
    const std::string path = layout_.Dedup(log_, parsed->epoch, parsed->number);
    const zk::Response read = co_await client_.Get(path);
    if (read.code == zk::Code::kNoNode) continue;  // a late copy of a drop
    if (read.code != zk::Code::kOk) co_return UnavailableError(read, "hand out the ids of deleted batches");
    std::vector<BatchIds> batches;
    if (Decode(read.data, batches)) {
      nodes_[path] = NewestOf(batches);
      std::move(batches.begin(), batches.end(), std::back_inserter(saved.batches));
      continue;
    }
    const Instant written = InstantOf(WallTime(milliseconds(read.stat.mtime_ms)));
    nodes_[path] = written;
    saved.damaged_until = std::max(saved.damaged_until.value_or(written + window_), written + window_);
    saved.damaged_path = path;
  }
  co_return saved;
}

bool DedupStore::Decode(std::string_view data, std::vector<BatchIds>& batches) const {
  storage::v1::DedupRecord record;
  if (!record.ParseFromArray(data.data(), static_cast<int>(data.size()))) return false;
  constexpr std::size_t kHashBytes = sizeof(IdHash::bytes);
  for (const storage::v1::DedupBatch& stored : record.batches()) {
    const auto ids = static_cast<std::size_t>(stored.first_indexes_size());
    if (stored.chain() >= static_cast<std::uint32_t>(record.chains_size()) ||
        stored.hashes().size() != ids * kHashBytes || static_cast<std::size_t>(stored.counts_size()) != ids) {
      return false;
    }
    const storage::v1::WriterRecord& chain = record.chains(static_cast<int>(stored.chain()));
    const std::optional<ProcessId> process = ProcessId::FromBytes(chain.process_id());
    if (!process) return false;
    BatchIds& batch = batches.emplace_back();
    batch.writer = {.process = *process, .generation = chain.generation(), .version = stored.version()};
    batch.written_at = InstantOf(WallTime(milliseconds(stored.written_time_ms())));
    for (std::size_t i = 0; i < ids; ++i) {
      const std::string_view hash = std::string_view(stored.hashes()).substr(i * kHashBytes, kHashBytes);
      const int at = static_cast<int>(i);
      const std::uint32_t first = stored.first_indexes(at);
      const std::uint32_t count = stored.counts(at);
      if (std::uint64_t{first} + count > Batch::kMessagesMax) return false;
      batch.ids.push_back({*IdHash::FromBytes(hash), first, count});
    }
    for (const storage::v1::DedupAnswer& answer : stored.answers()) {
      Duplicates duplicates = DecodeDuplicates(answer.duplicates(), batch.writer);
      if (answer.id() >= ids || !duplicates) return false;
      batch.ids[answer.id()].duplicates = std::move(duplicates);
    }
  }
  return true;
}

// ---- Writing

void DedupStore::Learn(Position batch, BatchIds ids) {
  if (ids.ids.empty() || !IsInWindow(ids.written_at)) return;
  ids.bytes = kBytesPerBatch + ids.ids.size() * kBytesPerId;
  for (const HashedId& id : ids.ids) {
    if (id.duplicates) ids.bytes += kBytesPerAnswer + id.duplicates->size() * kBytesPerDuplicate;
  }
  batches_[batch.BatchStart()] = std::move(ids);
}

std::size_t DedupStore::BytesOf(Position batch) const {
  if (batches_.empty()) return 0;
  const auto found = batches_.find(batch.BatchStart());
  if (found == batches_.end() || !IsInWindow(found->second.written_at)) return 0;
  return found->second.bytes;
}

std::optional<zk::Op> DedupStore::Carry(const std::vector<Position>& batches) {
  carrying_.reset();
  if (batches_.empty() || IsMutated(Mutation::kDropIdsOfDeleted)) return std::nullopt;
  Carrying carrying;
  std::size_t bytes = 0;
  bool has_ids = false;
  for (Position position : batches) {
    const auto found = batches_.find(position.BatchStart());
    if (found == batches_.end()) continue;
    carrying.batches.push_back(found->first);
    bytes += BytesOf(position);
    has_ids = has_ids || IsInWindow(found->second.written_at);
  }
  if (carrying.batches.empty()) return std::nullopt;
  bool is_new = true;
  if (latest_ && latest_->bytes + bytes <= kNodeBytesMax) {
    is_new = false;
    carrying.node.number = latest_->number;
    for (const BatchIds& batch : latest_->batches) {
      if (IsInWindow(batch.written_at)) carrying.node.batches.push_back(batch);
    }
  } else {
    carrying.node.number = latest_ ? latest_->number + 1 : 1;
  }
  for (Position position : carrying.batches) {
    const BatchIds& batch = batches_.at(position);
    if (IsInWindow(batch.written_at)) carrying.node.batches.push_back(batch);
  }
  if (!has_ids) carrying.node.batches.clear();
  std::string data = Encode(carrying.node.batches);
  carrying.node.bytes = data.size();
  std::string path = PathOf(carrying.node);
  carrying_ = std::move(carrying);
  if (!has_ids) return std::nullopt;
  if (is_new) return zk::Op::Create(std::move(path), std::move(data));
  return zk::Op::Set(std::move(path), std::move(data), zk::kAnyVersion);
}

void DedupStore::OnWritten() {
  if (!carrying_) return;
  for (Position position : carrying_->batches) batches_.erase(position);
  if (!carrying_->node.batches.empty()) {
    latest_ = std::move(carrying_->node);
    nodes_[PathOf(*latest_)] = NewestOf(latest_->batches);
  }
  carrying_.reset();
}

std::string DedupStore::Encode(const std::vector<BatchIds>& batches) const {
  storage::v1::DedupRecord record;
  std::vector<Writer> chains;
  for (const BatchIds& batch : batches) {
    auto chain = std::find_if(chains.begin(), chains.end(),
                              [&batch](const Writer& known) { return IsSameChain(known, batch.writer); });
    if (chain == chains.end()) {
      chain = chains.insert(chain, batch.writer);
      storage::v1::WriterRecord* added = record.add_chains();
      added->set_process_id(batch.writer.process.ToBytes());
      added->set_generation(batch.writer.generation);
    }
    storage::v1::DedupBatch* stored = record.add_batches();
    stored->set_chain(static_cast<std::uint32_t>(chain - chains.begin()));
    stored->set_version(batch.writer.version);
    stored->set_written_time_ms(LeaderTimeOf(batch.written_at).time_since_epoch().count());
    for (std::size_t i = 0; i < batch.ids.size(); ++i) {
      const HashedId& id = batch.ids[i];
      stored->mutable_hashes()->append(id.hash.view());
      stored->add_first_indexes(id.first_index);
      stored->add_counts(id.count);
      if (!id.duplicates) continue;
      storage::v1::DedupAnswer* answer = stored->add_answers();
      answer->set_id(static_cast<std::uint32_t>(i));
      EncodeDuplicates(id.duplicates, batch.writer, *answer->mutable_duplicates());
    }
  }
  return record.SerializeAsString();
}

// ---- Dropping

std::vector<std::string> DedupStore::TakeExpired() {
  // What is on its way counts as there.
  if (!carrying_) {
    absl::erase_if(batches_, [this](const auto& batch) { return !IsInWindow(batch.second.written_at); });
  }
  std::vector<std::string> expired;
  for (auto node = nodes_.begin(); node != nodes_.end();) {
    const bool is_being_written = carrying_ && PathOf(carrying_->node) == node->first;
    if (IsInWindow(node->second) || is_being_written) {
      ++node;
      continue;
    }
    if (latest_ && PathOf(*latest_) == node->first) {
      latest_->batches.clear();
      latest_->bytes = kNodeBytesMax + 1;  // the next write begins another
    }
    expired.push_back(node->first);
    node = nodes_.erase(node);
  }
  return expired;
}

}  // namespace postkeeper
