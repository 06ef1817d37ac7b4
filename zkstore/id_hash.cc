#include "zkstore/id_hash.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <algorithm>

namespace postkeeper {
namespace {

// Seeds of the hash; they keep the kinds of ids apart. Durable: never given another meaning.
constexpr std::uint64_t kRequestIdSeed = 1;
constexpr std::uint64_t kDedupIdSeed = 2;

IdHash HashOf(std::string_view id, std::uint64_t seed) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSeed(id.data(), id.size(), seed));
  IdHash hash;
  static_assert(sizeof(canonical.digest) == sizeof(hash.bytes));
  std::copy(std::begin(canonical.digest), std::end(canonical.digest), hash.bytes.begin());
  return hash;
}

}  // namespace

IdHash HashOfRequestId(std::string_view request_id) { return HashOf(request_id, kRequestIdSeed); }
IdHash HashOfDedupId(std::string_view dedup_id) { return HashOf(dedup_id, kDedupIdSeed); }

}  // namespace postkeeper
