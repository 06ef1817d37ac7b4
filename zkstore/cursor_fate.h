// What became of the last write of a cursor whose owner was deposed before it heard the answer.
#ifndef POSTKEEPER_ZKSTORE_CURSOR_FATE_H_
#define POSTKEEPER_ZKSTORE_CURSOR_FATE_H_

#include <compare>
#include <cstdint>
#include <optional>

#include "zkstore/client.h"
#include "zkstore/layout.h"
#include "zkstore/owner.h"

namespace postkeeper {

// A state of a source's cursor; each write makes a greater one. The default stands before the first.
struct CursorState {
  std::uint32_t generation = 0;
  std::int32_t version = -1;
  friend auto operator<=>(const CursorState&, const CursorState&) = default;
};

enum class WriteFate { kIn, kNotIn, kUnknown };

// How it works. Once the owner record has changed, no copy of the write can be committed any more, so the question has
// one answer for good. The first write of each epoch records which state it overwrote: if that of the first later epoch
// is at or past the one that our write would have made, ours is in. If no later epoch has written, the cursor stands as
// we left it. The cursor keeps the last eight epochs; when ours is past them, a state that is far enough may be a later
// owner's work, and nobody knows.
//
// `held`: the last ownership under which the write was sent. `made`: the state that it would have made. The record and
// the cursor are read under the same session: another server may show an older past. nullopt: it could not be read, or
// the change of the owner is not to be seen yet; to be called again.
Task<std::optional<WriteFate>> FindWriteFate(zk::Client& client, const Layout& layout, Uid log, Uid source,
                                             OwnerView held, CursorState made);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_CURSOR_FATE_H_
