#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::net {

struct AccessOptions {
  std::vector<std::string> api_keys;         ///< any of them opens every route; empty = no authentication
  std::vector<std::string> allowed_hosts;    ///< names (without port) a Host header may carry besides loopback and `host`
  std::vector<std::string> allowed_origins;  ///< "https://chat.example": may call from a browser, and gets CORS headers
};

/// Who may talk to the server. Immutable after construction. [any]
class Access {
 public:
  /// bind_host  the configured listen host, accepted as a Host name
  Access(const AccessOptions &options, const std::string &bind_host);

  bool keys_required() const { return !keys_.empty(); }

  /// The dense id from 1 of a known key. Compares digests, all of them, in constant time.
  std::optional<uint32_t> client_of(std::string_view key) const;

  /// Against DNS rebinding: the name in Host must be one this server is known by.
  /// host           the field's value, with or without port
  /// local_address  the address the peer connected to
  bool host_allowed(std::string_view host, std::string_view local_address) const;

  enum class Origin : uint8_t { kAbsent, kSame, kListed, kRefused };
  /// Against cross-site requests: a browser's Origin must be this server itself or listed; "null" never is.
  Origin check_origin(const std::string *origin, std::string_view host) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  std::vector<Digest> keys_;
  std::vector<std::string> hosts_, origins_;
};

/// The key in `Authorization: Bearer KEY`; empty when the field has another shape.
std::string_view bearer_key(std::string_view authorization);

}  // namespace sluice::net
