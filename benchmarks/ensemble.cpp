// Adam on the 64-64-10 ReLU net, one seed after the other, a thread for each core.
//
//     program GIVEN SEEDS STEPS THREADS
//
// GIVEN has the number of examples, the parameters, inputs and labels. It prints the
// seconds of the loops, and the loss of each seed on all examples.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>

constexpr int INPUTS = 64, HIDDEN = 64, CLASSES = 10, BATCH = 8;
constexpr float LR = 1e-3f, B1 = 0.9f, B2 = 0.99f, EPS = 1e-8f;
constexpr int W1 = 0, C1 = W1 + INPUTS * HIDDEN, W2 = C1 + HIDDEN;
constexpr int C2 = W2 + HIDDEN * CLASSES, SIZE = C2 + CLASSES;

struct Data {
  int count;
  std::vector<float> params, x;
  std::vector<std::int32_t> y;
};

Data read(const char* path) {
  Data data;
  std::ifstream file(path, std::ios::binary);
  auto into = [&](void* to, std::size_t bytes) { file.read(static_cast<char*>(to), bytes); };
  into(&data.count, 4);
  data.params.resize(SIZE);
  data.x.resize(std::size_t(data.count) * INPUTS);
  data.y.resize(data.count);
  into(data.params.data(), 4 * data.params.size());
  into(data.x.data(), 4 * data.x.size());
  into(data.y.data(), 4 * data.y.size());
  if (!file) std::exit(1);
  return data;
}

// Leaves the activations in h and the classes' probabilities in p; returns the loss.
float forward(const float* w, const float* x, int y, float* h, float* p) {
  std::copy(w + C1, w + C1 + HIDDEN, h);
  for (int i = 0; i < INPUTS; ++i)
    for (int j = 0; j < HIDDEN; ++j) h[j] += x[i] * w[W1 + i * HIDDEN + j];
  for (int j = 0; j < HIDDEN; ++j) h[j] = std::max(h[j], 0.0f);
  std::copy(w + C2, w + C2 + CLASSES, p);
  for (int j = 0; j < HIDDEN; ++j)
    for (int k = 0; k < CLASSES; ++k) p[k] += h[j] * w[W2 + j * CLASSES + k];
  float top = *std::max_element(p, p + CLASSES), sum = 0, own = p[y] - top;
  for (int k = 0; k < CLASSES; ++k) sum += p[k] = std::exp(p[k] - top);
  for (int k = 0; k < CLASSES; ++k) p[k] /= sum;
  return std::log(sum) - own;
}

// Adds the gradient of one example's loss, over the batch's size.
void backward(const float* w, const float* x, int y, const float* h, float* p, float* g) {
  p[y] -= 1;
  float d[HIDDEN];
  for (int k = 0; k < CLASSES; ++k) p[k] /= BATCH, g[C2 + k] += p[k];
  for (int j = 0; j < HIDDEN; ++j) {
    float sum = 0;
    for (int k = 0; k < CLASSES; ++k) {
      sum += w[W2 + j * CLASSES + k] * p[k];
      g[W2 + j * CLASSES + k] += h[j] * p[k];
    }
    d[j] = h[j] > 0 ? sum : 0;
    g[C1 + j] += d[j];
  }
  for (int i = 0; i < INPUTS; ++i)
    for (int j = 0; j < HIDDEN; ++j) g[W1 + i * HIDDEN + j] += x[i] * d[j];
}

float train(const Data& data, int seed, int steps) {
  std::vector<float> w = data.params, g(SIZE), m(SIZE), v(SIZE);
  std::uint64_t state = 0x9E3779B97F4A7C15u * (seed + 1);
  auto random = [&] {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return int((state >> 32) * std::uint64_t(data.count) >> 32);
  };
  float h[HIDDEN], p[CLASSES], decay1 = 1, decay2 = 1;
  for (int step = 0; step < steps; ++step) {
    std::fill(g.begin(), g.end(), 0.0f);
    for (int n = 0; n < BATCH; ++n) {
      int i = random();
      const float* x = &data.x[std::size_t(i) * INPUTS];
      forward(w.data(), x, data.y[i], h, p);
      backward(w.data(), x, data.y[i], h, p, g.data());
    }
    decay1 *= B1, decay2 *= B2;
    float c1 = 1 / (1 - decay1), c2 = 1 / (1 - decay2);
    for (int i = 0; i < SIZE; ++i) {
      m[i] = B1 * m[i] + (1 - B1) * g[i];
      v[i] = B2 * v[i] + (1 - B2) * g[i] * g[i];
      w[i] -= LR * c1 * m[i] / (std::sqrt(c2 * v[i]) + EPS);
    }
  }
  double loss = 0;
  for (int i = 0; i < data.count; ++i)
    loss += forward(w.data(), &data.x[std::size_t(i) * INPUTS], data.y[i], h, p);
  return loss / data.count;
}

int main(int, char** argv) {
  Data data = read(argv[1]);
  int seeds = std::atoi(argv[2]), steps = std::atoi(argv[3]), threads = std::atoi(argv[4]);
  std::vector<float> losses(seeds);
  std::vector<std::thread> all;
  auto start = std::chrono::steady_clock::now();
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      for (int seed = t; seed < seeds; seed += threads)
        losses[seed] = train(data, seed, steps);
    });
  for (auto& thread : all) thread.join();
  std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  std::printf("%.9f\n", taken.count());
  for (float loss : losses) std::printf("%.7f\n", loss);
}
