#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/net/exchange.hpp"

namespace sluice::net {

enum class RouteAccess : uint8_t { kKey, kPublic };  ///< kPublic: no key asked for, even when keys are set
enum class RouteBody : uint8_t { kNone, kJson };     ///< kJson: any other content type is a 415

using Handler = std::function<void(std::shared_ptr<Exchange>)>;
using WsFactory = std::function<std::shared_ptr<WsProtocol>()>;

struct Route {
  std::string method;   ///< "GET" also answers HEAD
  std::string pattern;  ///< "/v1/models" or, with a last segment of any text, "/v1/models/{}"
  RouteAccess access = RouteAccess::kKey;
  RouteBody body = RouteBody::kNone;
  Handler handler;      ///< null on a WebSocket route
  WsFactory ws = {};    ///< set: a GET that must upgrade
  std::string ws_subprotocol = {};  ///< echoed when the client offers it
};

/// The table of everything the server answers. Filled before the server starts, constant afterwards.
class Router {
 public:
  void add(Route route) { routes_.push_back(std::move(route)); }

  struct Match {
    const Route *route = nullptr;  ///< null: no such path, or not with this method
    std::string allow;             ///< methods of the path; empty: no such path
    std::string parameter;         ///< decoded
    bool is_public = false;        ///< the path needs no key
  };
  Match match(std::string_view method, std::string_view path) const;

  const std::vector<Route> &routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace sluice::net
