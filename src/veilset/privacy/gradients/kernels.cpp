// What takes the time of per-record gradients: a convolution's weight gradients with their squared norms, group
// normalisation, and the clipped sum. Images lie position by position, channels adjacent: [images, H, W, C].
//
// Compiled once for each kind of vector that processors may have (VARIANT, WIDTH), and once without VARIANT: that part
// asks the processor which of them it can run, and divides records over threads. What is computed of a record depends
// neither on other records nor on its place nor on the number of threads. Sums run in one order for all widths.
// NaN, infinity and denormal numbers are treated as IEEE 754 has it: there must be no -ffast-math here.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

struct Convolution {  // as kernels.py hands it over
  int64_t images;     // of a record; their gradients are added up
  int64_t H, W, C;    // of what comes in
  int64_t high, wide, O;  // of the gradient of what goes out
  int64_t kh, kw, sh, sw, ph, pw, dh, dw;  // size of the kernel, stride, padding, dilation
  int64_t half;    // both are bfloat16; else float32
  int64_t across;  // vectors run over outputs, not inputs: gradients [kh, kw, C, O], not [kh, kw, O, C]
};
struct Norm {
  int64_t L, C, groups, half;  // positions, channels
  double eps;
};

#define DECLARE(name)                                                                                             \
  extern "C" int convolution_##name(const Convolution&, const void*, const void*, float*, double*, int64_t, int64_t); \
  extern "C" int norm_##name(const Norm&, const void*, const float*, const float*, void*, float*, float*, int64_t, int64_t); \
  extern "C" int norm_back_##name(const Norm&, const void*, const void*, const float*, const float*, const float*, void*,   \
                                  float*, float*, int64_t, int64_t);                                              \
  extern "C" int mix_##name(const float*, const double*, double*, int64_t, int64_t, int64_t, int64_t);

#ifdef VARIANT
#define PASTE(a, b) a##_##b
#define NAME(a, b) PASTE(a, b)
#define EXPAND(x) DECLARE(x)
EXPAND(VARIANT)

namespace {

constexpr int64_t SHORT = 256;  // numbers that are added up in float32 before they go into a float64
constexpr int MOST = WIDTH == 8 ? 2 : 4;  // vectors in a row of a block: the accumulators have to fit the registers

typedef float V __attribute__((vector_size(4 * WIDTH)));
typedef float Loose __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef double D __attribute__((vector_size(8 * WIDTH)));
typedef uint32_t U __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t Short __attribute__((vector_size(2 * WIDTH)));
typedef uint16_t LooseShort __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));

inline V load(const float* p) { return *(const Loose*)p; }
inline V load(const uint16_t* p) {
  return (V)(__builtin_convertvector((Short) * (const LooseShort*)p, U) << 16);
}
inline void store(float* p, V v) { *(Loose*)p = v; }
inline void store(uint16_t* p, V v) {  // to the nearest, ties to even; NaN stays NaN
  U u = (U)v, rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16, quiet = (u >> 16) | 0x40;
  U broken = (U)((u & 0x7fffffff) > 0x7f800000);
  *(LooseShort*)p = __builtin_convertvector((broken & quiet) | (~broken & rounded), Short);
}
inline float single(float v) { return v; }
inline float single(uint16_t v) {
  uint32_t u = (uint32_t)v << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

float* room(int64_t count) {
  void* p = nullptr;
  return posix_memalign(&p, 64, 4 * (count + WIDTH)) ? nullptr : (float*)p;
}
struct Room {  // memory of one thread
  explicit Room(int64_t count) : at(room(count)), ok(at) {}
  ~Room() { free(at); }
  float* at;
  bool ok;
};

// ------------------------------------------------------------------ convolution

// Floats from the first number of either side to those of one position; of one record, so 32 bits do.
struct Place { uint32_t one, many; };

// A numbers of one side times B vectors of the other, summed over positions; lanes of the vectors that count are kept.
template <int A, int B>
void block(const Place* begin, const Place* end, const float* one, const float* many, float* e, int64_t next, int64_t lanes,
           D& square) {
  V sum[A][B] = {};
  for (const Place* p = begin; p < end; p++) {
    const float *s = one + p->one, *v = many + p->many;
    V seen[B];
    for (int b = 0; b < B; b++) seen[b] = load(v + WIDTH * b);
    for (int a = 0; a < A; a++)
      for (int b = 0; b < B; b++) sum[a][b] += s[a] * seen[b];
  }
  V squares[B] = {};  // several, so that none waits for the one before
  for (int a = 0; a < A; a++)
    for (int b = 0; b < B; b++) {
      V v = sum[a][b];
      if (b == B - 1 && lanes < WIDTH * B) {
        float kept[WIDTH] = {};
        memcpy(kept, &v, 4 * (lanes - WIDTH * b));
        memcpy(e + a * next + WIDTH * b, kept, 4 * (lanes - WIDTH * b));
        v = load(kept);
      } else {
        store(e + a * next + WIDTH * b, v);
      }
      squares[b] += v * v;
    }
  for (int b = 1; b < B; b++) squares[0] += squares[b];
  square += __builtin_convertvector(squares[0], D);
}

template <int A, int B>
void band(const Place* begin, const Place* end, const float* one, const float* many, float* e, int64_t next, int64_t lanes,
          int64_t count, D& square) {
  for (; count >= A; count -= A, one += A, e += A * next) block<A, B>(begin, end, one, many, e, next, lanes, square);
  if constexpr (A > 1) band<A - 1, B>(begin, end, one, many, e, next, lanes, count, square);
}

// `count` numbers of one side times `width` of the other, into e [count, next].
void product(const Place* begin, const Place* end, const float* one, const float* many, float* e, int64_t next, int64_t count,
             int64_t width, D& square) {
  while (width > 0) {
    int64_t vectors = (width + WIDTH - 1) / WIDTH;
    int64_t b = vectors >= MOST ? MOST : vectors, lanes = width < b * WIDTH ? width : b * WIDTH;
    if (MOST == 4 && b == 4)
      band<6, MOST>(begin, end, one, many, e, next, lanes, count, square);
    else if (MOST == 4 && b == 3)
      band<8, MOST == 4 ? 3 : 1>(begin, end, one, many, e, next, lanes, count, square);
    else if (b == 2)
      band<MOST == 4 ? 8 : 6, 2>(begin, end, one, many, e, next, lanes, count, square);
    else
      band<8, 1>(begin, end, one, many, e, next, lanes, count, square);
    many += lanes, e += lanes, width -= lanes;
  }
}

// Pixels [images, H, W, C] as float32 with so much room around them and channels to each; the room stays as it is.
template <typename T>
void spread(const T* from, float* to, int64_t images, int64_t H, int64_t W, int64_t C, int64_t ph, int64_t pw, int64_t each) {
  for (int64_t i = 0; i < images; i++)
    for (int64_t h = 0; h < H; h++) {
      float* row = to + ((i * (H + 2 * ph) + h + ph) * (W + 2 * pw) + pw) * each;
      const T* seen = from + (i * H + h) * W * C;
      const int64_t runs = each == C ? 1 : W, run = each == C ? W * C : C;
      for (int64_t w = 0; w < runs; w++, row += each, seen += C) {
        int64_t c = 0;
        for (; c + WIDTH <= run; c += WIDTH) store(row + c, load(seen + c));
        for (; c < run; c++) row[c] = single(seen[c]);
      }
    }
}

// The first output whose input at this offset lies in the image, and the one behind the last.
inline int64_t first(int64_t offset, int64_t stride) { return offset >= 0 ? 0 : (stride - 1 - offset) / stride; }
inline int64_t last(int64_t offset, int64_t stride, int64_t size, int64_t outputs) {
  int64_t fits = size - 1 - offset < 0 ? 0 : (size - 1 - offset) / stride + 1;
  return fits < outputs ? fits : outputs;
}

template <typename T>
int gradients(const Convolution& k, const T* x, const T* g, float* e, double* square, int64_t begin, int64_t end) {
  const auto whole = [](int64_t v) { return (v + WIDTH - 1) / WIDTH * WIDTH; };
  const bool across = k.across, same = sizeof(T) == sizeof(float);
  const int64_t ph = across ? k.ph : 0, pw = across ? k.pw : 0;
  const int64_t Cs = across ? k.C : whole(k.C), Os = across ? whole(k.O) : k.O, Ws = k.W + 2 * pw, Hs = k.H + 2 * ph;
  const bool copied = !same || Cs != k.C || ph || pw, moved = !same || Os != k.O;
  const int64_t pixels = k.images * Hs * Ws * Cs, points = k.images * k.high * k.wide * Os;
  Room large(copied ? pixels : 0), small(moved ? points : 0), list(2 * k.images * k.high * k.wide);
  if (!large.ok || !small.ok || !list.ok) return 1;
  Place* places = (Place*)list.at;
  if (copied) memset(large.at, 0, 4 * (pixels + WIDTH));
  if (moved) memset(small.at, 0, 4 * (points + WIDTH));
  for (int64_t r = begin; r < end; r++) {
    const T* xr = x + r * k.images * k.H * k.W * k.C;
    const T* gr = g + r * k.images * k.high * k.wide * k.O;
    if (copied) spread(xr, large.at, k.images, k.H, k.W, k.C, ph, pw, Cs);
    if (moved) spread(gr, small.at, k.images, k.high, k.wide, k.O, 0, 0, Os);
    const float *in = copied ? large.at : (const float*)xr, *out = moved ? small.at : (const float*)gr;
    D sum = D{};
    float* to = e + r * k.kh * k.kw * k.O * k.C;
    const bool rows = across && k.dw == 1;  // a row of the kernel lies adjacent in the image: one tap for all of it
    const int64_t taps = rows ? 1 : k.kw, count = rows ? k.kw * k.C : k.C, width = across ? k.O : k.C;
    for (int64_t i = 0; i < k.kh; i++)
      for (int64_t j = 0; j < taps; j++) {
        const int64_t down = i * k.dh - k.ph + ph, right = j * k.dw - k.pw + pw;
        const int64_t h0 = first(down, k.sh), h1 = last(down, k.sh, Hs, k.high);
        const int64_t w0 = first(right, k.sw), w1 = rows ? k.wide : last(right, k.sw, Ws, k.wide);
        Place* end = places;  // of all positions whose input lies in the image
        for (int64_t m = 0; m < k.images; m++)
          for (int64_t h = h0; h < h1; h++)
            for (int64_t w = w0; w < w1; w++, end++) {
              const int64_t from = ((m * Hs + h * k.sh + down) * Ws + w * k.sw + right) * Cs;
              const int64_t at = ((m * k.high + h) * k.wide + w) * Os;
              *end = across ? Place{(uint32_t)from, (uint32_t)at} : Place{(uint32_t)at, (uint32_t)from};
            }
        product(places, end, across ? in : out, across ? out : in, to, width, across ? count : k.O, width, sum);
        to += count * k.O;
      }
    double total = 0;
    for (int l = 0; l < WIDTH; l++) total += sum[l];
    square[r] = total;
  }
  return 0;
}

// ------------------------------------------------------------------ group normalisation; C is a multiple of WIDTH

// Into sum [C], float64: over positions, what `term` gives of a position's vector number c.
template <typename F>
inline void over(int64_t L, int64_t C, double* sum, F term) {
  for (int64_t c = 0; c < C; c += WIDTH) {
    D whole = D{};
    for (int64_t l = 0; l < L; l += SHORT) {
      const int64_t stop = l + SHORT < L ? l + SHORT : L;
      V part[4] = {};
      int64_t p = l;
      for (; p + 4 <= stop; p += 4)
        for (int u = 0; u < 4; u++) part[u] += term(p + u, c);
      for (; p < stop; p++) part[0] += term(p, c);
      whole += __builtin_convertvector((part[0] + part[1]) + (part[2] + part[3]), D);
    }
    memcpy(sum + c, &whole, sizeof whole);
  }
}

template <typename T>
int normed(const Norm& k, const T* x, const float* gain, const float* shift, T* y, float* mean, float* rstd, int64_t begin,
           int64_t end) {
  const int64_t L = k.L, C = k.C, each = C / k.groups;
  Room room(5 * C);
  if (!room.ok) return 1;
  double* sum = (double*)room.at;
  float *centre = room.at + 2 * C, *slope = centre + C, *level = slope + C;
  for (int64_t r = begin; r < end; r++) {
    const T* v = x + r * L * C;
    T* o = y + r * L * C;
    over(L, C, sum, [&](int64_t l, int64_t c) { return load(v + l * C + c); });
    for (int64_t g = 0; g < k.groups; g++) {
      double total = 0;
      for (int64_t c = g * each; c < (g + 1) * each; c++) total += sum[c];
      mean[r * k.groups + g] = (float)(total / (L * each));
      for (int64_t c = g * each; c < (g + 1) * each; c++) centre[c] = mean[r * k.groups + g];
    }
    over(L, C, sum, [&](int64_t l, int64_t c) {
      V d = load(v + l * C + c) - load(centre + c);
      return d * d;
    });
    for (int64_t g = 0; g < k.groups; g++) {
      double total = 0;
      for (int64_t c = g * each; c < (g + 1) * each; c++) total += sum[c];
      const float s = (float)(1 / __builtin_sqrt(total / (L * each) + k.eps));
      rstd[r * k.groups + g] = s;
      for (int64_t c = g * each; c < (g + 1) * each; c++) slope[c] = gain ? s * gain[c] : s, level[c] = shift ? shift[c] : 0;
    }
    for (int64_t l = 0; l < L; l++)
      for (int64_t c = 0; c < C; c += WIDTH)
        store(o + l * C + c, (load(v + l * C + c) - load(centre + c)) * load(slope + c) + load(level + c));
  }
  return 0;
}

// Into `back` the gradient of x, into `gain` and `shift` [images, C] those of scale and shift, image by image.
template <typename T>
int norm_gradients(const Norm& k, const T* g, const T* x, const float* scale, const float* mean, const float* rstd, T* back,
                   float* gain, float* shift, int64_t begin, int64_t end) {
  const int64_t L = k.L, C = k.C, each = C / k.groups;
  Room room(8 * C);
  if (!room.ok) return 1;
  double *plain = (double*)room.at, *along = plain + C;
  float *centre = room.at + 4 * C, *direct = centre + C, *slope = direct + C, *level = slope + C;
  for (int64_t r = begin; r < end; r++) {
    const T *v = x + r * L * C, *u = g + r * L * C;
    T* o = back + r * L * C;
    for (int64_t c = 0; c < C; c++) centre[c] = mean[r * k.groups + c / each];
    over(L, C, plain, [&](int64_t l, int64_t c) { return load(u + l * C + c); });
    over(L, C, along, [&](int64_t l, int64_t c) { return load(u + l * C + c) * (load(v + l * C + c) - load(centre + c)); });
    for (int64_t q = 0; q < k.groups; q++) {
      const double s = rstd[r * k.groups + q];
      double a = 0, p = 0;
      for (int64_t c = q * each; c < (q + 1) * each; c++) {
        const double w = scale ? scale[c] : 1;
        gain[r * C + c] = (float)(along[c] * s);
        shift[r * C + c] = (float)plain[c];
        a += along[c] * s * w;
        p += plain[c] * w;
        direct[c] = (float)(w * s);
      }
      for (int64_t c = q * each; c < (q + 1) * each; c++) {
        slope[c] = (float)(-a * s * s / (L * each));
        level[c] = (float)(-p * s / (L * each));
      }
    }
    for (int64_t l = 0; l < L; l++)
      for (int64_t c = 0; c < C; c += WIDTH) {
        const V d = load(v + l * C + c) - load(centre + c);
        store(o + l * C + c, load(u + l * C + c) * load(direct + c) + (d * load(slope + c) + load(level + c)));
      }
  }
  return 0;
}

// ------------------------------------------------------------------ the clipped sum

constexpr int64_t COLUMNS = 2048;  // whose float64 sums stay in the nearest cache

}  // namespace

extern "C" int NAME(convolution, VARIANT)(const Convolution& k, const void* x, const void* g, float* e, double* square,
                                          int64_t begin, int64_t end) {
  if (k.half) return gradients(k, (const uint16_t*)x, (const uint16_t*)g, e, square, begin, end);
  return gradients(k, (const float*)x, (const float*)g, e, square, begin, end);
}

extern "C" int NAME(norm, VARIANT)(const Norm& k, const void* x, const float* gain, const float* shift, void* y, float* mean,
                                   float* rstd, int64_t begin, int64_t end) {
  if (k.half) return normed(k, (const uint16_t*)x, gain, shift, (uint16_t*)y, mean, rstd, begin, end);
  return normed(k, (const float*)x, gain, shift, (float*)y, mean, rstd, begin, end);
}

extern "C" int NAME(norm_back, VARIANT)(const Norm& k, const void* g, const void* x, const float* scale, const float* mean,
                                        const float* rstd, void* back, float* gain, float* shift, int64_t begin, int64_t end) {
  if (k.half)
    return norm_gradients(k, (const uint16_t*)g, (const uint16_t*)x, scale, mean, rstd, (uint16_t*)back, gain, shift, begin,
                          end);
  return norm_gradients(k, (const float*)g, (const float*)x, scale, mean, rstd, (float*)back, gain, shift, begin, end);
}

// total [size] += share [n] times rows [n, size], float64, for columns begin .. end; all of one share 0 are left out.
extern "C" int NAME(mix, VARIANT)(const float* rows, const double* share, double* total, int64_t n, int64_t size,
                                  int64_t begin, int64_t end) {
  for (int64_t from = begin; from < end; from += COLUMNS) {
    const int64_t to = from + COLUMNS < end ? from + COLUMNS : end;
    const float* row[4];  // four at a time, so that sums are fetched and put back less often
    double s[4];
    int64_t kept = 0;
    for (int64_t r = 0; r < n; r++) {
      if (share[r] == 0) continue;
      row[kept] = rows + r * size;
      s[kept++] = share[r];
      if (kept < 4) continue;
      kept = 0;
      const float *p = row[0], *q = row[1], *u = row[2], *v = row[3];
      for (int64_t c = from; c < to; c++)
        total[c] = (((total[c] + s[0] * p[c]) + s[1] * q[c]) + s[2] * u[c]) + s[3] * v[c];
    }
    for (int64_t k = 0; k < kept; k++)
      for (int64_t c = from; c < to; c++) total[c] += s[k] * row[k][c];
  }
  return 0;
}

#else
#include <atomic>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#define VARIANTS(f) f(v4) f(v3)
#else
#define VARIANTS(f) f(neon)
#endif
VARIANTS(DECLARE)

namespace {

// Work [0, count) in as many pieces as threads, the first of them here; what does not get a thread is done here too.
template <typename F>
int shared(int64_t count, int64_t threads, F work) {
  if (threads > count) threads = count;
  if (threads < 2) return count ? work((int64_t)0, count) : 0;
  std::atomic<int> failed{0};
  std::thread* others = new (std::nothrow) std::thread[threads];
  if (!others) return work((int64_t)0, count);
  for (int64_t t = 1; t < threads; t++) {
    const auto piece = [&, t] { failed |= work(count * t / threads, count * (t + 1) / threads); };
    try {
      others[t] = std::thread(piece);
    } catch (const std::system_error&) {
      piece();
    }
  }
  failed |= work((int64_t)0, count / threads);
  for (int64_t t = 1; t < threads; t++)
    if (others[t].joinable()) others[t].join();
  delete[] others;
  return failed;
}

enum Kind { none, v4, v3, neon };

Kind kind() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
    return v4;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") ? v3 : none;
#else
  return neon;
#endif
}
const Kind found = kind();
Kind chosen = found;

}  // namespace

#if defined(__x86_64__)
#define CALL(name, ...) (chosen == v4 ? name##_v4(__VA_ARGS__) : chosen == v3 ? name##_v3(__VA_ARGS__) : 2)
#else
#define CALL(name, ...) name##_neon(__VA_ARGS__)
#endif

// Each returns 0; 1 for want of memory; 2 on a processor for which nothing was compiled.
extern "C" {

// Values of float32 in a vector; 0 on a processor for which nothing was compiled.
int veilset_width() { return chosen == v4 ? 16 : chosen == v3 ? 8 : chosen == neon ? 4 : 0; }

// For tests: use no wider vectors than so many values, if the processor has several kinds.
void veilset_narrow(int width) { chosen = found == v4 && width < 16 ? v3 : found; }

int veilset_convolution(const Convolution* k, const void* x, const void* g, float* e, double* square, int64_t n, int64_t threads) {
  return shared(n, threads, [=](int64_t begin, int64_t end) { return CALL(convolution, *k, x, g, e, square, begin, end); });
}

int veilset_norm(const Norm* k, const void* x, const float* gain, const float* shift, void* y, float* mean, float* rstd,
                 int64_t images, int64_t threads) {
  return shared(images, threads,
                [=](int64_t begin, int64_t end) { return CALL(norm, *k, x, gain, shift, y, mean, rstd, begin, end); });
}

int veilset_norm_back(const Norm* k, const void* g, const void* x, const float* scale, const float* mean, const float* rstd,
                      void* back, float* gain, float* shift, int64_t images, int64_t threads) {
  return shared(images, threads, [=](int64_t begin, int64_t end) {
    return CALL(norm_back, *k, g, x, scale, mean, rstd, back, gain, shift, begin, end);
  });
}

int veilset_mix(const float* rows, const double* share, double* total, int64_t n, int64_t size, int64_t threads) {
  return shared(size, threads, [=](int64_t begin, int64_t end) { return CALL(mix, rows, share, total, n, size, begin, end); });
}
}
#endif
