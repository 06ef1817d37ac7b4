// What a znode of the store holds, in words.
#ifndef POSTKEEPER_SERVICE_INSPECT_RECORD_H_
#define POSTKEEPER_SERVICE_INSPECT_RECORD_H_

#include <string_view>

#include "service/inspect_tree.h"
#include "zkstore/layout.h"

namespace postkeeper {

// Decodes `data` as what `layout` says is kept at `path`. The tree has "kind" (Batch, OwnerRecord ..., "directory",
// "segment", or "unknown" for what is not ours) and the fields of the record; "damaged" and why, if it cannot be read.
// Bodies of messages are left out unless `shows_bodies`. Ids are shown as in paths and in the API, times in UTC. Pure.
InspectTree DescribeZnode(const Layout& layout, std::string_view path, std::string_view data, bool shows_bodies);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_INSPECT_RECORD_H_
