"""Sizes and strengths of a simulated recording, as a study file gives them."""

from dataclasses import dataclass

VIDEO_DTYPES = ("uint8", "float32", "float64")
RESPONSE_DTYPES = ("float32", "float64")
TRUTH_RATES = ("float32", "float16", "none")


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """Sizes and strengths of a simulated recording; the defaults are the demo's.

    With metadata of a real animal, numbers of neurons, trials, videos and repeats come from there.

    Attributes:
        neurons, training_trials, none_trials: counts.
        test_videos: different movies per natural test tier and per bonus stimulus type.
        random_dots_videos: the same for random dots, None: as many as `test_videos`.
        repeats: presentations of each test video.
        frame_shape: (height, width) in pixels.
        video_dtype, response_dtype: on disk; behaviour and statistics have the latter.
        padded_frames: array length of every trial, at least; the longest trial may exceed it.
        behavior, pupil_center: whether the archive holds them. What is absent has no effect.
        response_noise: Fano factor of the spike counts; 1 Poisson, 0 no noise at all.
        mean_rate_hz: median over neurons of the mean rate during natural movies.
        gaze_shift_pixels: receptive-field shift per standard deviation of the pupil centre.
        truth_rates: precision of the expected responses kept, or `none`.
        compression_level: of deflate, 0 stores.
    """

    neurons: int = 100
    training_trials: int = 60
    none_trials: int = 1
    test_videos: int = 2
    random_dots_videos: int | None = None
    repeats: int = 4
    frame_shape: tuple[int, int] = (36, 64)
    video_dtype: str = "uint8"
    response_dtype: str = "float32"
    padded_frames: int = 324
    behavior: bool = True
    pupil_center: bool = True
    response_noise: float = 1.0
    mean_rate_hz: float = 1.2
    gaze_shift_pixels: float = 1.0
    truth_rates: str = "float32"
    compression_level: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_shape", tuple(int(size) for size in self.frame_shape))
        for name, least in (
            ("neurons", 1),
            ("training_trials", 1),
            ("none_trials", 0),
            ("test_videos", 1),
            ("repeats", 1),
            ("padded_frames", 1),
            ("response_noise", 0),
            ("gaze_shift_pixels", 0),
            ("compression_level", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"Simulation setting {name} is {getattr(self, name)}; "
                    f"it must be at least {least}."
                )
        if self.random_dots_videos is not None and self.random_dots_videos < 1:
            raise ValueError("Simulation setting random_dots_videos must be at least 1 or null.")
        if self.mean_rate_hz <= 0 or self.compression_level > 9:
            raise ValueError("mean_rate_hz must be positive and compression_level at most 9.")
        if len(self.frame_shape) != 2 or min(self.frame_shape) < 8:
            raise ValueError(
                f"Simulation setting frame_shape is {self.frame_shape}; give (height, width) in "
                "pixels, each at least 8."
            )
        for name, allowed in (
            ("video_dtype", VIDEO_DTYPES),
            ("response_dtype", RESPONSE_DTYPES),
            ("truth_rates", TRUTH_RATES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Simulation setting {name} is {getattr(self, name)!r}; choose among "
                    f"{', '.join(allowed)}."
                )
