#include "core/net/access.hpp"

#include "core/net/http_head.hpp"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace sluice::net {
namespace {

std::array<unsigned char, 32> digest(std::string_view text) {
  std::array<unsigned char, 32> out;
  SHA256(reinterpret_cast<const unsigned char *>(text.data()), text.size(), out.data());
  return out;
}

std::string name_of(std::string_view host) {
  if (!host.empty() && host.front() == '[') return lower(host.substr(1, host.find(']') - 1));
  return lower(host.substr(0, host.find(':')));
}

}  // namespace

Access::Access(const AccessOptions &options, const std::string &bind_host)
    : hosts_{"localhost", "127.0.0.1", "::1", lower(bind_host)} {
  for (const auto &key : options.api_keys) keys_.push_back(digest(key));
  for (const auto &host : options.allowed_hosts) hosts_.push_back(lower(host));
  for (const auto &origin : options.allowed_origins) origins_.push_back(lower(origin));
}

std::optional<uint32_t> Access::client_of(std::string_view key) const {
  const Digest wanted = digest(key);
  std::optional<uint32_t> found;
  for (size_t i = 0; i < keys_.size(); ++i) {  // no early exit: time must not tell which key is close
    if (CRYPTO_memcmp(keys_[i].data(), wanted.data(), wanted.size()) == 0) found = static_cast<uint32_t>(i + 1);
  }
  return found;
}

bool Access::host_allowed(std::string_view host, std::string_view local_address) const {
  const std::string name = name_of(host);
  return name == local_address || std::find(hosts_.begin(), hosts_.end(), name) != hosts_.end();
}

Access::Origin Access::check_origin(const std::string *origin, std::string_view host) const {
  if (origin == nullptr) return Origin::kAbsent;
  const std::string wanted = lower(*origin);
  if (std::find(origins_.begin(), origins_.end(), wanted) != origins_.end()) return Origin::kListed;
  const std::string self = lower(host);
  return !self.empty() && (wanted == "http://" + self || wanted == "https://" + self) ? Origin::kSame : Origin::kRefused;
}

std::string_view bearer_key(std::string_view authorization) {
  if (authorization.size() < 8 || lower(authorization.substr(0, 7)) != "bearer ") return {};
  authorization.remove_prefix(7);
  while (!authorization.empty() && authorization.front() == ' ') authorization.remove_prefix(1);
  return authorization;
}

}  // namespace sluice::net
