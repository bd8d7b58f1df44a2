"""How vendors and their users name what a scanner makes: the words that the model reads beside the pixels.

Home and away scanners share no site, and the away scanners follow naming habits that the home ones never show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Habits:
    """One naming habit. series: "T2 axial" → descriptions. studies: Study Descriptions.

    protocols: Protocol Names; {} stands for the series description, and one without it is the whole examination's.
    maps: what the scanner adds to the diffusion protocol's name for trace images and ADC map; {} where it does not.
    """

    series: Mapping[str, tuple[str, ...]]
    studies: tuple[str, ...]
    protocols: tuple[str, ...] = ("{}",)
    maps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scanner:
    """One machine at one site. vendor, model: as its objects name them. field_strength: tesla."""

    site: str
    vendor: str
    model: str
    field_strength: float
    habits: Habits


def _names(table: str) -> dict[str, tuple[str, ...]]:
    """Lines of "sequence plane: one | another"."""
    lines = (line.partition(":") for line in table.strip().splitlines())
    return {key.strip(): tuple(name.strip() for name in names.split("|")) for key, _, names in lines}


SIEMENS = Habits(
    _names("""
        T2 axial: t2_tse_tra_p2 | t2_tse_tra | t2_tse_tra_448_p2 | t2_blade_tra_p2 | AX T2 TSE | t2_tse_ax
        T2 coronal: t2_tse_cor | t2_tse_cor_p2 | t2_tse_cor_448 | COR T2 TSE
        FLAIR axial: t2_tirm_tra_dark-fluid | t2_tirm_tra_dark-fluid_p2 | flair_tra_p2 | t2_flair_tra_fs | AX FLAIR
        FLAIR sagittal: t2_tirm_sag_dark-fluid | flair_sag_p2 | SAG FLAIR
        DWI axial: ep2d_diff_b1000 | ep2d_diff_3scan_trace_p2 | ep2d_diff_tra_b0_b1000 | resolve_diff_tra_p2 | AX DWI
        T2STAR axial: t2_fl2d_tra_hemo | t2_fl2d_tra_hemo_p2 | t2star_tra | AX T2* HEMO | gre_tra_hemo
        SWI axial: t2_swi_tra | swi_tra_p2 | SWI_Images
        T1 sagittal: t1_se_sag | t1_tse_sag | t1_se_sag_p2 | SAG T1
        T1 axial: t1_se_tra | t1_tse_tra_p2 | AX T1
        T1C axial: t1_se_tra_post | t1_se_tra_+c | t1_tse_tra_KM | AX T1 POST
        T1C coronal: t1_se_cor_post | t1_tse_cor_+c | COR T1 POST
    """),
    ("MRI BRAIN W/O CONTRAST", "MR BRAIN WITHOUT AND WITH CONTRAST", "HEAD^ROUTINE", "MR Head", "MRI Brain"),
    maps={"DWI": "_TRACEW", "ADC": "_ADC"},
)

SIEMENS_CLINIC = Habits(
    _names("""
        T2 axial: T2 TSE AXIAL | Ax T2 TSE fs | T2 AX BLADE | Axial T2
        T2 coronal: T2 TSE CORONAL | Cor T2 TSE
        FLAIR axial: FLAIR AXIAL | Ax FLAIR fs | T2 FLAIR AX | Axial FLAIR dark fluid
        FLAIR sagittal: FLAIR SAGITTAL | Sag FLAIR
        DWI axial: DWI AXIAL | Ax Diffusion | DIFFUSION 3 SCAN TRACE | Axial DWI b1000
        T2STAR axial: T2* AXIAL | Ax GRE hemo | Ax T2 GRE
        SWI axial: SWI AXIAL | Ax SWI | Axial SWI
        T1 sagittal: T1 SAGITTAL | Sag T1 SE | Sagittal T1
        T1 axial: T1 AXIAL | Ax T1 SE
        T1C axial: T1 AXIAL POST GAD | Ax T1 SE +C | Axial T1 post contrast
        T1C coronal: T1 CORONAL POST GAD | Cor T1 SE +C | Coronal T1 post contrast
    """),
    ("MRI BRAIN WO CON", "MRI BRAIN W WO CON", "MRI HEAD", "Brain MRI", "MR HEAD STROKE"),
    maps={"DWI": "_TRACEW", "ADC": "_ADC"},
)

GE = Habits(
    _names("""
        T2 axial: Ax T2 FSE | Ax T2 | AX T2 FRFSE | Ax T2 PROPELLER | Ax T2 fs FSE
        T2 coronal: Cor T2 FSE | Cor T2 | COR T2 FRFSE
        FLAIR axial: Ax T2 FLAIR | AX FLAIR | Ax T2 FLAIR FS | Ax FLAIR PROPELLER | AX T2 FLAIR ASSET
        FLAIR sagittal: Sag T2 FLAIR | SAG FLAIR
        DWI axial: Ax DWI | AX DWI ASSET | Ax DWI b=1000 | DWI B1000
        ADC axial: ADC (10^-6 mm2/s) | Apparent Diffusion Coefficient (mm2/s) | ADC: Ax DWI | Ax ADC
        T2STAR axial: Ax T2* GRE | Ax GRE | AX T2 GRE | Ax MERGE
        SWI axial: AX SWAN | Ax SWAN ASSET
        T1 sagittal: Sag T1 | Sag T1 FSE | SAG T1 SE
        T1 axial: Ax T1 | Ax T1 FSE | AX T1 SE
        T1C axial: +C Ax T1 | Ax T1 POST | AX T1 FSE +C | AX T1 SE GAD
        T1C coronal: +C Cor T1 | Cor T1 POST | COR T1 FSE +C
    """),
    ("MRI BRAIN", "MRI BRAIN W/WO", "MR BRAIN WO", "BRAIN ROUTINE", "MRI HEAD W AND WO CONTRAST"),
    ("BRAIN W/WO", "ROUTINE BRAIN", "Brain/1", "HEAD STROKE", "BRAIN TUMOR"),
)

PHILIPS = Habits(
    _names("""
        T2 axial: T2W_TSE_ax | T2W_TSE | Ax T2 TSE | T2W_TSE_FS_ax | T2 TSE tra
        T2 coronal: T2W_TSE_cor | Cor T2 TSE
        FLAIR axial: FLAIR_ax | T2W_FLAIR | FLAIR_longTR | Ax FLAIR SPIR | T2W_FLAIR_SPAIR
        FLAIR sagittal: FLAIR_sag | Sag T2W_FLAIR
        DWI axial: DWI_b1000 | DWI_SSh | DWI_ax | sDWI | Reg - DWI_SSh
        ADC axial: dADC | ADC | dReg - DWI_SSh | dSSh_DWI ADC
        T2STAR axial: T2W_FFE | T2*W_FFE_ax | FFE_T2_hemo | Ax T2 FFE
        SWI axial: SWIp | SWIp_ax
        T1 sagittal: T1W_SE_sag | T1W_TSE_sag | Sag T1 SE
        T1 axial: T1W_SE_ax | T1W_TSE_ax | Ax T1 SE
        T1C axial: T1W_SE_ax_GD | T1W_TSE+C | sT1W_SE_gado | Ax T1 SE post
        T1C coronal: T1W_SE_cor_GD | T1W_TSE_cor+C | Cor T1 SE post
    """),
    ("MRI Brain", "BRAIN", "MR Brain routine", "Brain W/O & W Gd", "MR Neuro head"),
    ("{}", "{} SENSE", "WIP {}", "WIP {} SENSE"),
)

CANON = Habits(
    _names("""
        T2 axial: T2 AX FSE | FSE T2 ax | AX_T2_FSE2D | T2W AX JET
        T2 coronal: T2 COR FSE | COR_T2_FSE2D
        FLAIR axial: FLAIR AX | FSE FLAIR ax | AX_FLAIR_FSE2D | T2 FLAIR AX FatSat
        FLAIR sagittal: FLAIR SAG | SAG_FLAIR_FSE2D
        DWI axial: DWI AX b1000 | SE_EPI DWI | AX_DWI_SEEPI | ISO DWI
        ADC axial: ADC AX | ADC map | AX_ADC_SEEPI | isoADC
        T2STAR axial: T2STAR AX FE | FE T2* ax | AX_T2S_FE2D
        SWI axial: FSBB AX | AX_FSBB_FE
        T1 sagittal: T1 SAG SE | SE T1 sag | SAG_T1_SE2D
        T1 axial: T1 AX SE | AX_T1_SE2D
        T1C axial: CE T1 AX | T1 AX SE ENHANCED | AX_T1_SE2D_CE
        T1C coronal: CE T1 COR | T1 COR SE ENHANCED | COR_T1_SE2D_CE
    """),
    ("BRAIN STANDARD", "HEAD MRI PLAIN", "Brain enhanced", "HEAD SCREENING"),
    ("{}", "Brain", "Head standard"),
)

UNITED_IMAGING = Habits(
    _names("""
        T2 axial: t2_fse_tra | t2_arms_tra | t2_fse_tra_fs
        T2 coronal: t2_fse_cor | t2_fse_cor_fs
        FLAIR axial: t2_fse_flair_tra | t2_flair_fs_tra | flair_arms_tra
        FLAIR sagittal: t2_fse_flair_sag
        DWI axial: epi_dwi_tra_b1000 | epi_dwi_tra | dwi_epi_b0_1000_tra
        ADC axial: epi_dwi_tra_b1000_ADC | epi_dwi_tra_ADC | dwi_epi_b0_1000_tra_ADC
        T2STAR axial: gre_t2s_tra | t2s_gre_tra_2d
        SWI axial: swi_tra_bh | swi_tra
        T1 sagittal: t1_fse_sag | t1_fse_sag_fs
        T1 axial: t1_fse_tra
        T1C axial: t1_fse_tra+C | t1_fse_fs_tra_CE
        T1C coronal: t1_fse_cor+C | t1_fse_fs_cor_CE
    """),
    ("Head^Routine", "Brain plain scan", "Brain enhanced scan", "Neuro^Head"),
)

GERMAN = Habits(
    _names("""
        T2 axial: T2 TSE axial | T2 TSE transversal | T2 tra FS
        T2 coronal: T2 TSE koronar | T2 TSE cor
        FLAIR axial: FLAIR transversal | T2 FLAIR axial | TIRM dunkle Flüssigkeit tra
        FLAIR sagittal: FLAIR sagittal FS
        DWI axial: Diffusion transversal | DWI EPI axial | Diffusion b1000
        ADC axial: ADC Karte | ADC transversal | Diffusion ADC
        T2STAR axial: T2* GRE axial | Häm-Sequenz transversal | T2* FE tra
        SWI axial: BSI transversal | SWI axial
        T1 sagittal: T1 SE sagittal | T1 nativ sag
        T1 axial: T1 SE axial | T1 nativ tra
        T1C axial: T1 SE axial KM | T1 tra nach KM
        T1C coronal: T1 SE koronar KM | T1 cor nach KM
    """),
    ("MRT Schädel", "MRT des Kopfes nativ und mit KM", "Schädel-MRT", "MR Kopf"),
    ("{}", "Schädel Standard", "Kopf Routine"),
)

HOME = (
    Scanner("home-1", "SIEMENS", "Avanto", 1.5, SIEMENS),
    Scanner("home-2", "SIEMENS", "Skyra", 3.0, SIEMENS),
    Scanner("home-3", "Siemens Healthineers", "MAGNETOM Vida", 3.0, SIEMENS_CLINIC),
    Scanner("home-4", "GE MEDICAL SYSTEMS", "SIGNA HDxt", 1.5, GE),
    Scanner("home-5", "GE MEDICAL SYSTEMS", "DISCOVERY MR750", 3.0, GE),
    Scanner("home-6", "Philips Medical Systems", "Achieva", 1.5, PHILIPS),
    Scanner("home-7", "Philips", "Ingenia", 3.0, PHILIPS),
)
AWAY = (
    Scanner("away-1", "CANON_MEC", "Vantage Orian", 1.5, CANON),
    Scanner("away-2", "TOSHIBA_MEC", "Titan", 3.0, CANON),
    Scanner("away-3", "UIH", "uMR 570", 1.5, UNITED_IMAGING),
    Scanner("away-4", "Hitachi Medical Corporation", "Oasis", 1.2, GERMAN),
)
