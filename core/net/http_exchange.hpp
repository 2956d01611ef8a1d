#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/net/http_session.hpp"

namespace sluice::net {

/// The Exchange over one request of an HttpSession. Holds the session until the answer is sent or the peer is gone.
class HttpExchange final : public Exchange {
 public:
  HttpExchange(std::shared_ptr<HttpSession> session, RequestHead head, std::string request_id)
      : session_(std::move(session)), head_(std::move(head)), request_id_(std::move(request_id)) {}

  const RequestHead &head() const override { return head_; }
  const std::string &body() const override { return body_; }
  const std::string &path_parameter() const override { return parameter_; }
  const std::string &request_id() const override { return request_id_; }
  uint32_t client() const override { return client_; }
  Post post() const override { return post_; }
  bool open() const override { return session_ != nullptr; }
  void add_header(std::string name, std::string value) override {
    headers_.emplace_back(std::move(name), std::move(value));
  }
  void respond(Response response) override;
  void start_stream() override;
  std::string &out() override { return out_; }
  void flush() override;
  bool writable() const override;
  void finish(End end) override;
  void on_gone(std::function<void(Gone)> callback) override { gone_ = std::move(callback); }
  void on_writable(std::function<void()> callback) override { writable_ = std::move(callback); }

 private:
  friend class HttpSession;
  std::shared_ptr<HttpSession> session_;  ///< null once over
  RequestHead head_;
  std::string body_, parameter_, request_id_, out_;
  uint32_t client_ = 0;
  Post post_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::function<void(Gone)> gone_;
  std::function<void()> writable_;
  bool keep_alive_ = true, chunked_ = true, finishing_ = false;
};

}  // namespace sluice::net
