// Hashes that stand for the ids of clients, in memory and in the store.
#ifndef POSTKEEPER_ZKSTORE_ID_HASH_H_
#define POSTKEEPER_ZKSTORE_ID_HASH_H_

#include <string_view>

#include "zkstore/text_id.h"

namespace postkeeper {

// 128 bits: of the ids of one log's window (100,000 by default) two are equal by chance once in 10^28 windows. No key:
// who could aim at the hash of another's id would have to know that id, and whoever knows it and may append here can
// simply use it. The two kinds of ids have different hashes of one text.
using IdHash = RandomId<struct IdHashTag>;
IdHash HashOfRequestId(std::string_view request_id);
IdHash HashOfDedupId(std::string_view dedup_id);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_ID_HASH_H_
