#include "zkstore/cursor_fate.h"

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/cursor.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using storage::v1::CursorRecord;

WriteFate FateFrom(const CursorRecord& record, CursorState now, std::int64_t epoch, CursorState made) {
  for (int i = 0; i < record.epochs_size(); ++i) {
    const auto& later = record.epochs(i);
    if (later.epoch() <= epoch) continue;
    CursorState overwrote;
    if (later.overwrote_version() >= 0) overwrote = {later.overwrote_generation(), later.overwrote_version()};
    const bool is_said = later.overwrote_version() < 0 || later.overwrote_generation() > 0;
    if (!is_said) return WriteFate::kUnknown;  // recorded by a build that did not say the generation
    if (overwrote < made) return WriteFate::kNotIn;
    const bool is_first = i > 0 || record.epochs_size() < Cursor::kEpochsKept;
    return is_first ? WriteFate::kIn : WriteFate::kUnknown;
  }
  return now >= made ? WriteFate::kIn : WriteFate::kNotIn;
}

}  // namespace

Task<std::optional<WriteFate>> FindWriteFate(zk::Client& client, const Layout& layout, Uid log, Uid source,
                                             OwnerView held, CursorState made) {
  const std::optional<WriteFate> ask_again;
  const std::optional<WriteFate> unknown = WriteFate::kUnknown;
  const std::int64_t session_id = client.session().session_id;
  const absl::StatusOr<OwnerView> owner = co_await ReadOwner(client, layout, log);
  if (absl::IsNotFound(owner.status()) || HasReason(owner.status(), Reason::kStoreCorrupt)) co_return unknown;
  if (!owner.ok() || owner->version <= held.version) co_return ask_again;

  const zk::Response names = co_await client.Children(layout.Cursors(log));
  if (names.code == zk::Code::kNoNode) co_return unknown;  // deleted with its log
  if (names.code != zk::Code::kOk) co_return ask_again;
  CursorState now;
  for (const std::string& name : names.children) {
    const std::optional<Layout::CursorName> parsed = Layout::ParseCursor(name);
    if (parsed && parsed->source == source) now.generation = std::max(now.generation, parsed->generation);
  }
  CursorRecord record;
  if (now.generation > 0) {
    const zk::Response read = co_await client.Get(layout.Cursor(log, source, now.generation));
    if (read.code != zk::Code::kOk) co_return ask_again;  // NONODE: it has just moved on to the next generation
    if (!record.ParseFromString(read.data)) co_return unknown;
    now.version = read.stat.version;
  }
  if (client.session().session_id != session_id) co_return ask_again;
  co_return FateFrom(record, now, held.epoch, made);
}

}  // namespace postkeeper
